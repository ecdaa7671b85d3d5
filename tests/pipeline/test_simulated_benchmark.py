"""The simulated benchmark on disk: sound, as stated, resumable, and never mixed with anything else."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detect.blazeface import BlazeFaceDetector
from mmdg_model.inputs import DepthEncoding, InputSpecification, crop_levels, prepare
from mmdg_model.training.decoding import load_sample, read_sample_levels
from mmdg_model.training.manifests import list_path, read_list, read_manifests, read_metadata
from mmdg_model.training.samples import PUBLIC_DOMAINS, UNKNOWN, Domain, ManifestError, Split
from mmdg_model.training.simulated_tree import MARK, read_simulated_tree
from mmdg_model.training.verification import verify
from pipeline import simulated_benchmark
from pipeline.simulated_benchmark import BenchmarkPlan, make_benchmark, plan_benchmark
from pipeline.simulated_trees.contact_sheet import draw_contact_sheet
from pipeline.simulated_trees.domains import SimulationError
from pipeline.simulated_trees.presentation import record
from tests.pipeline.simulated_tree import simulated_tree  # noqa: F401  (a fixture)


def contents(root, pattern="**/*"):
    return {path.relative_to(root): path.read_bytes() for path in root.glob(pattern) if path.is_file()}


@pytest.fixture
def copy(simulated_tree, tmp_path):  # noqa: F811
    return shutil.copytree(simulated_tree, tmp_path / "copy")


def test_verification_passes_on_what_the_tree_states(simulated_tree):  # noqa: F811
    lists = simulated_tree / "lists"
    report = verify(simulated_tree, lists, metadata=read_metadata(lists / "P-metadata.csv"))
    assert report.simulated
    assert [(each.list_name, each.error, each.troubles) for each in report.lists if not each.agrees or each.troubles
            or each.error] == []
    assert report.overlaps == ()
    assert report.passed
    assert all(UNKNOWN not in each.species and each.unknown_subjects == 0 for each in report.lists)
    assert all(each.counts.live and each.counts.spoof for each in report.lists)


def test_without_its_mark_a_simulated_tree_is_not_as_published(copy):
    (copy / MARK).unlink()
    report = verify(copy, copy / "lists", check_files=False)
    assert not report.simulated
    assert not report.passed


def test_a_mark_that_cannot_be_read_is_no_licence(copy):
    (copy / MARK).write_text('{"simulated": true}')
    with pytest.raises(ManifestError, match="cannot be read"):
        verify(copy, copy / "lists", check_files=False)


def test_lists_have_the_form_of_the_public_ones(simulated_tree):  # noqa: F811
    for domain in PUBLIC_DOMAINS:
        for split in Split:
            text = list_path(simulated_tree / "lists", domain, split).read_bytes()
            if domain is Domain.PADISI:
                assert text.endswith(b"\n")
                assert b"\r" not in text
                assert all(line.count(b"\t") == 1 for line in text.splitlines())
            else:
                assert not text.endswith(b"\n")
                assert text.count(b"\r\n") == text.count(b"\n") == len(text.splitlines()) - 1


def test_the_mark_says_how_levels_were_written(simulated_tree):  # noqa: F811
    tree = read_simulated_tree(simulated_tree)
    assert tree.seed == 0
    assert tree.inputs == InputSpecification(image_size=128, depth_encoding=DepthEncoding.METRIC_8BIT)
    assert tree.specification_sha256 == plan_benchmark("tiny").specification_sha256
    people = [number for numbers in tree.identities.values() for number in numbers]
    assert len(people) == len(set(people)) >= 24
    stated = json.loads((simulated_tree / MARK).read_text())
    assert stated["simulated"] is True
    assert set(stated["domains"]) == set(Domain)
    assert set(stated["non_response"]) == {f"{domain}-{split}" for domain in PUBLIC_DOMAINS for split in Split}
    assert stated["species"]["S"]["flat_print_eyes_cut"]


@pytest.mark.parametrize("domain", [Domain.PADISI, Domain.WMCA])
def test_stored_levels_are_what_a_live_crop_is(simulated_tree, domain, monkeypatch):  # noqa: F811
    """From metric depth on: the same crop through the file and through `prepare` gives the same network input."""
    from pipeline.simulated_trees import presentation

    plan = plan_benchmark("tiny")
    recording = plan.recordings[domain, Split.TRAIN][-1]
    crops = []
    monkeypatch.setattr(presentation, "crop_levels",
                        lambda crop, inputs: crops.append(crop) or crop_levels(crop, inputs))
    with BlazeFaceDetector() as detector:
        instant = next(each for each in record(recording, detector, plan.inputs) if each.levels is not None)
    name = recording.names(instant.index)[0]
    listed = read_list(list_path(simulated_tree / "lists", domain, Split.TRAIN), simulated_tree, domain, Split.TRAIN)
    sample = next(each for each in listed if each.name == name)
    if domain is Domain.PADISI:  # lossless
        for stored, made in zip(read_sample_levels(sample).values(),
                                (instant.levels.colour, instant.levels.depth, instant.levels.infrared), strict=True):
            assert np.array_equal(stored, made)
        return
    live = prepare([crops[0]], plan.inputs)
    stored = prepare([load_sample(sample, image_size=128)],
                     InputSpecification(image_size=128, depth_encoding=DepthEncoding.IDENTITY_8BIT))
    assert np.array_equal(stored.present, live.present)
    # JPEG alone is between them: 128 levels are 1.0.
    assert np.abs(stored.planes - live.planes).mean() < 6 / 128


def test_a_finished_tree_is_not_rendered_again(copy, monkeypatch):
    before = contents(copy)
    monkeypatch.setattr(simulated_benchmark, "_make_worker", lambda *_: pytest.fail("nothing is left to render"))
    progress = []
    outcome = make_benchmark(copy, plan_benchmark("tiny"), on_progress=lambda *counts: progress.append(counts))
    assert contents(copy) == before
    assert progress == [(48, 48)]
    assert sum(each["lines"] for each in outcome.lists.values()) == outcome.rendered.total() - outcome.missed.total()


def test_what_is_missing_is_rendered_again_to_the_same_bytes(copy):
    before = contents(copy)
    lost = next(each for each in (copy / "recordings").iterdir() if each.name.startswith("P-"))
    (copy / json.loads(lost.read_text())["instants"][0]["names"][0]).unlink()
    lost.unlink()
    make_benchmark(copy, plan_benchmark("tiny"))
    assert contents(copy) == before


@pytest.mark.parametrize("other", [{"seed": 1}, {"image_size": 64}])
def test_two_specifications_never_share_a_folder(copy, other):
    before = contents(copy)
    with pytest.raises(SimulationError, match="another specification"):
        make_benchmark(copy, plan_benchmark("tiny", **other))
    assert contents(copy) == before


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"a real one")
    with pytest.raises(SimulationError, match="not empty"):
        make_benchmark(tmp_path, plan_benchmark("tiny"))
    assert contents(tmp_path) == {Path("photo.jpg"): b"a real one"}


def test_two_runs_never_share_a_folder(copy):
    descriptor = os.open(copy / "recordings", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(SimulationError, match="another run is at work"):
            make_benchmark(copy, plan_benchmark("tiny"))
    finally:
        os.close(descriptor)


def test_a_miss_is_counted_and_shortens_the_list(copy):
    before = make_benchmark(copy, plan_benchmark("tiny"))
    path = next(each for each in sorted((copy / "recordings").iterdir()) if each.name.startswith("W-train"))
    content = json.loads(path.read_text())
    lost = next(each for each in content["instants"] if each["names"] is not None)
    lost["names"] = None
    path.write_text(json.dumps(content))
    outcome = make_benchmark(copy, plan_benchmark("tiny"))
    assert outcome.missed.total() == before.missed.total() + 1
    assert outcome.lists["W-train"]["lines"] == before.lists["W-train"]["lines"] - 1
    stated = json.loads((copy / MARK).read_text())["non_response"]
    assert sum(each["missed"] for of_list in stated.values() for each in of_list.values()) == outcome.missed.total()
    assert verify(copy, copy / "lists", domains=[Domain.WMCA], check_files=False).passed


def test_a_list_without_one_label_is_refused(copy):
    for path in (copy / "recordings").glob("P-val-*.json"):
        content = json.loads(path.read_text())
        if content["species"] == "bona_fide":
            for instant in content["instants"]:
                instant["names"] = None
            path.write_text(json.dumps(content))
    with pytest.raises(SimulationError, match="P-val: the face detector left one label"):
        make_benchmark(copy, plan_benchmark("tiny"))


KILLED = """
from pathlib import Path
from mmdg_model.training.samples import Domain
from pipeline.simulated_benchmark import make_benchmark, plan_benchmark
plan = plan_benchmark("tiny", domains=[Domain.PADISI])
make_benchmark(Path({root!r}), plan, on_progress=lambda done, total: print(done, flush=True))
"""


def test_a_killed_run_leaves_no_half_file_and_goes_on(simulated_tree, tmp_path):  # noqa: F811
    root = tmp_path / "tree"
    with subprocess.Popen([sys.executable, "-c", KILLED.format(root=str(root))], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if int(line) == 2:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert (root / MARK).exists()  # from its first file on, whatever lies there says that it is simulated
    assert not (root / "lists").exists()
    whole = contents(simulated_tree)
    assert all(whole[name] == content for name, content in contents(root, "*.npz").items())
    plan = plan_benchmark("tiny", domains=[Domain.PADISI])
    assert isinstance(plan, BenchmarkPlan)
    make_benchmark(root, plan)
    expected = contents(simulated_tree, "*.npz") | contents(simulated_tree, "lists/P-*")
    assert contents(root, "*.npz") | contents(root, "lists/P-*") == expected
    assert not list(root.rglob("*.partial"))


def test_all_domains_can_be_read_by_the_protocols(simulated_tree):  # noqa: F811
    manifests = read_manifests(simulated_tree, simulated_tree / "lists")
    assert len(manifests) == 12
    frames = {sample.recording: 0 for samples in manifests.values() for sample in samples}
    for samples in manifests.values():
        for sample in samples:
            frames[sample.recording] += 1
    assert set(frames.values()) == {1, 3}


def test_the_contact_sheet_shows_every_species(simulated_tree, tmp_path):  # noqa: F811
    import cv2

    sheet = cv2.imread(str(draw_contact_sheet(simulated_tree, tmp_path / "sheet.png")))
    lists = simulated_tree / "lists"
    rows = len({(domain, sample.species) for (domain, _), samples in read_manifests(
        simulated_tree, lists, metadata=read_metadata(lists / "P-metadata.csv")).items() for sample in samples})
    assert sheet.shape[0] == 30 + 112 * rows
    assert all(sheet[30 + 112 * row:142 + 112 * row, 190:].any() for row in range(rows))
