"""Choice of a backend: what is chosen is said, what cannot run says why, nothing falls back."""

import logging
import subprocess
import sys

import pytest

from mmdg_model.backends import Backend, BackendError, backend_status, make_scorer, processor
from mmdg_model.checkpoint import CheckpointError
from mmdg_model.scorer import Purpose
from tests.mmdg_model.builders import crop

without_cuda = pytest.mark.skipif(backend_status(Backend.CUDA).runs, reason="a CUDA device is here")


@without_cuda
def test_auto_says_what_it_chose_and_why(checkpoint_path, checkpoint, caplog):
    with caplog.at_level(logging.INFO, logger="mmdg_model.backends"):
        scorer = make_scorer(checkpoint_path, threads=1)
    expected = "bfloat16" if processor.has_bfloat16_products() else "float32"
    assert (scorer.description.backend, scorer.description.precision) == ("torch", expected)
    assert "no GPU" in scorer.description.reason
    assert [record.getMessage() for record in caplog.records] == [
        f"model {checkpoint.hash[:12]} on {scorer.description}"]
    assert scorer.model_hash == scorer.description.checkpoint_hash == checkpoint.hash
    assert scorer.purpose is Purpose.TEST


def test_an_exported_model_runs_under_openvino_and_is_known_by_its_manifest(exports, checkpoint):
    scorer = make_scorer(exports["int8"])
    assert (scorer.description.backend, scorer.description.precision) == ("openvino", "int8")
    assert scorer.description.checkpoint_hash == checkpoint.hash
    assert scorer.score([crop()])[0].model_hash == scorer.model_hash != checkpoint.hash
    assert make_scorer(exports["int8"], expected_hash=scorer.model_hash).model_hash == scorer.model_hash


@pytest.mark.parametrize(("exported", "arguments", "quoted"), [
    (False, {"backend": "openvino"}, r"mmdg export .*--backend openvino.*backend torch runs"),
    (False, {"backend": "torch", "precision": "int8"}, r"backend torch has float32, bfloat16; int8 needs an exported"),
    (False, {"backend": "torch", "precision": "float64"}, r"precision is 'float64'"),
    (True, {"backend": "torch"}, r"exported model for openvino, asked was torch"),
    (True, {"precision": "bfloat16"}, r"was exported in int8, asked was bfloat16"),
    pytest.param(False, {"backend": "cuda"}, r"backend cuda cannot run: .*CUDA.*backend torch runs here",
                 marks=without_cuda),
])
def test_what_cannot_run_says_why_and_what_can(checkpoint_path, exports, exported, arguments, quoted):
    with pytest.raises(BackendError, match=quoted):
        make_scorer(exports["int8"] if exported else checkpoint_path, **arguments)


@pytest.mark.parametrize(("arguments", "quoted"), [
    ({"backend": "tensorrt"}, "backend is 'tensorrt', expected one of auto, torch, cuda, openvino"),
    ({"threads": 0}, "threads is 0"),
])
def test_wrong_arguments_are_refused(checkpoint_path, arguments, quoted):
    with pytest.raises(ValueError, match=quoted):
        make_scorer(checkpoint_path, **arguments)


def test_another_file_than_pinned_is_refused(checkpoint_path):
    with pytest.raises(CheckpointError, match="expected 0000"):
        make_scorer(checkpoint_path, expected_hash="0" * 64)


def test_a_missing_runtime_is_named_with_its_remedy(monkeypatch, exports):
    monkeypatch.setattr("mmdg_model.backends.importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"openvino is not installed: pip install 'mmdg-live\[openvino\]'"):
        make_scorer(exports["float32"])


def test_an_exported_model_scores_without_torch(exports):
    program = ("import sys; sys.modules['torch'] = None\n"
               "from pathlib import Path; from mmdg_model.backends import make_scorer\n"
               "from mmdg_model.known_answer import known_answer_crops\n"
               "from mmdg_model.inputs import InputSpecification\n"
               f"scorer = make_scorer(Path({str(exports['float32'])!r}))\n"
               "print(len(scorer.score(known_answer_crops(InputSpecification(image_size=64)))))")
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (ended.stdout.strip(), ended.returncode) == ("4", 0), ended.stderr


@pytest.mark.parametrize(("text", "flags"), [
    ("flags\t: fpu avx2 amx_bf16\nflags\t: fpu avx2\n", {"avx2"}),  # only what every core has
    ("Features : asimd\n", set()),
])
def test_processor_flags_are_read_from_the_system(tmp_path, text, flags):
    file = tmp_path / "cpuinfo"
    file.write_text(text, encoding="utf-8")
    assert processor.matrix_flags(file) == flags
    assert not processor.has_bfloat16_products(processor.matrix_flags(file))
    assert processor.matrix_flags(tmp_path / "missing") == frozenset()
