"""Foreign files: what is opened, what is refused and in which words; no code in a file ever runs."""

import dataclasses
import hashlib
import os
import re

import pytest
import safetensors.torch
import torch

from mmdg_model.weights.importing import import_weights
from mmdg_model.weights.layout import WeightImportError
from mmdg_model.weights.official import OFFICIAL
from mmdg_model.weights.source_file import read_source
from tests.mmdg_model.weights.references import HEADS, REFERENCES


class Code:
    """Unpickled without care, it would make a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def weights():
    return REFERENCES["timm"][0]()


def torch_file(path, content, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_files_of_torch_save(tmp_path, options):
    source = read_source(torch_file(tmp_path / "in.pth", weights(), **options))
    assert set(source.weights) == set(weights())
    assert all(torch.equal(source.weights[name], weight) for name, weight in weights().items())


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_code_in_a_pickle_does_not_run(tmp_path, options):
    target = tmp_path / "made by the pickle"
    path = torch_file(tmp_path / "in.pth", {"state_dict": weights(), "arguments": Code(target)}, **options)
    torch.load(path, weights_only=False)
    target.rmdir()  # it does run when nobody takes care
    with pytest.raises(WeightImportError, match=r"holds objects other than weights.*mkdir.*nothing was run"):
        read_source(path)
    assert not target.exists()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_truncated_pickle(tmp_path, share, options):
    path = torch_file(tmp_path / "in.pth", weights(), **options)
    blob = path.read_bytes()
    path.write_bytes(blob[:int(len(blob) * share)])
    with pytest.raises(WeightImportError, match=rf"weights {re.escape(str(path))}: not a whole file of torch\.save"):
        read_source(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_safetensors(tmp_path, share):
    path = tmp_path / "in.safetensors"
    safetensors.torch.save_file(weights(), path)
    blob = path.read_bytes()
    path.write_bytes(blob[:int(len(blob) * share)])
    with pytest.raises(WeightImportError, match=r"not a whole safetensors file .* truncated"):
        read_source(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"weights, honestly", b"\x89HDF\r\n\x1a\n" + bytes(100),
                                     b"GGUF\x03\x00\x00\x00"])
def test_another_type_of_file(tmp_path, content):
    (tmp_path / "in.pth").write_bytes(content)
    with pytest.raises(WeightImportError, match=re.escape(f"begins with {content[:8]!r}")):
        read_source(tmp_path / "in.pth")


def test_no_file(tmp_path):
    with pytest.raises(WeightImportError, match=r"nothing\.pth: cannot be read \(No such file"):
        read_source(tmp_path / "nothing.pth")


def test_a_folder_and_a_huge_file_are_not_read(tmp_path):
    with pytest.raises(WeightImportError, match="expected a regular file"):
        read_source(tmp_path)
    with (tmp_path / "huge.pth").open("wb") as file:
        file.truncate(9 * 2**30)  # takes no space
    with pytest.raises(WeightImportError, match="9663676416 bytes, expected a regular file of at most 8589934592"):
        read_source(tmp_path / "huge.pth")


@pytest.mark.parametrize(("content", "complaint"), [
    ([1, 2], "holds a list, expected a mapping"),
    (torch.zeros(3), "holds a Tensor, expected a mapping"),
    ({}, "no state dict under the keys"),
    ({"epoch": 3, "optimizer": {"lr": 0.1}}, "no state dict under the keys epoch, optimizer"),
    ({"model": {"a": torch.zeros(1)}, "net": {"a": torch.zeros(1)}}, r"several state dicts \(model, net\)"),
    ({"a": torch.zeros(1), "b": 3}, "no state dict under the keys a, b"),
    ({"a": torch.zeros(2, dtype=torch.complex64)}, "a is torch.complex64"),
    ({"a": torch.zeros(2, dtype=torch.int8)}, "a is torch.int8"),
    ({"a": torch.zeros(1).expand(10**12)}, "a claims 1000000000000 elements, more than the file stores"),
    ({"a": torch.eye(2).to_sparse()}, "a is torch.float32, torch.sparse_coo"),
])
def test_content_that_is_no_state_dict(tmp_path, content, complaint):
    with pytest.raises(WeightImportError, match=complaint):
        read_source(torch_file(tmp_path / "in.pth", content))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_a_pickle(tmp_path, dtype):
    half = {name: weight.to(dtype) for name, weight in weights().items()}
    report = import_weights(torch_file(tmp_path / "in.pth", half), tmp_path / "out.safetensors", heads=HEADS)
    assert report.layout == "timm"


@pytest.mark.parametrize(("prefix", "left"), [("module.", ""), ("_orig_mod.module.", ""), ("model.net.", ""),
                                              ("student.", "student.")])
def test_only_the_prefixes_of_known_wrappers_come_off(tmp_path, prefix, left):
    wrapped = {prefix + name: weight for name, weight in weights().items()}
    source = read_source(torch_file(tmp_path / "in.pth", wrapped))
    assert set(source.weights) == {left + name for name in weights()}
    assert source.prefix == ("" if left else prefix)


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    some = {f"module.{name}" if name.startswith("blocks") else name: weight for name, weight in weights().items()}
    assert set(read_source(torch_file(tmp_path / "in.pth", some)).weights) == set(some)


def test_torchscript_is_opened_only_if_its_hash_is_trusted(tmp_path):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.LayerNorm(3)), tmp_path / "in.pt")
    asked = []
    with pytest.raises(WeightImportError, match="a TorchScript archive, which is a program") as caught:
        read_source(tmp_path / "in.pt", trusted_torchscript=lambda sha256: bool(asked.append(sha256)))
    assert asked[0] in str(caught.value)
    source = read_source(tmp_path / "in.pt", trusted_torchscript=lambda sha256: sha256 == asked[0])
    assert set(source.weights) == {"weight", "bias"}


def test_official_torchscript_is_imported(tmp_path, monkeypatch):
    class Tower(torch.nn.Module):
        """Weights under the names of CLIP's image tower; OpenAI's file is such an archive."""

        def __init__(self):
            super().__init__()
            for name, weight in REFERENCES["openai_clip"][0]().items():
                *modules, last = name.split(".")
                parent = self
                for module in modules:
                    if module not in dict(parent.named_children()):
                        parent.add_module(module, torch.nn.Module())
                    parent = parent.get_submodule(module)
                parent.register_buffer(last, weight.half())

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value

    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.trace(Tower(), torch.zeros(1)), tmp_path / "in.pt")
    with pytest.raises(WeightImportError, match="only official ones are opened"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors", heads=HEADS)
    row = dataclasses.replace(OFFICIAL["openai-clip-vit-b-16"],
                              sha256=hashlib.sha256((tmp_path / "in.pt").read_bytes()).hexdigest())
    monkeypatch.setitem(OFFICIAL, row.name, row)
    report = import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors", heads=HEADS)
    assert report.layout == "openai_clip"


def safetensors_file(path, content):
    safetensors.torch.save_file(content, path)
    return path


def legacy_file(path, content):
    return torch_file(path, content, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch_file, legacy_file, safetensors_file])
def test_damage_anywhere_gives_this_error_and_no_other(tmp_path, write):
    path = write(tmp_path / "in.pth", {"a.weight": torch.arange(6.0), "a.bias": torch.zeros(2)})
    blob, generator = path.read_bytes(), torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(blob)
        position = int(torch.randint(len(blob), (1,), generator=generator))
        damaged[position] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        path.write_bytes(damaged)
        try:
            read_source(path)
        except WeightImportError:
            refused += 1
    assert refused > 10
