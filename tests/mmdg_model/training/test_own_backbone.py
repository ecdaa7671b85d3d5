"""A method with a network of its own takes nothing from a pretrained ViT, and its records do not say that it did."""

import dataclasses

import pytest

from mmdg_model.training.assemble import backbone_of
from mmdg_model.training.benchmark_grid import GridConfig, MethodRow, plan
from mmdg_model.training.methods.registry import METHODS
from mmdg_model.training.run_config import MachineConfig, RunConfig, RunConfigError
from mmdg_model.weights.backbone import load_backbone, save_backbone
from tests.mmdg_model.training.methods.builders import toy_backbone
from tests.mmdg_model.training.toy_benchmark import ToyAssembly

OWN = [name for name, row in METHODS.items() if row.own_backbone]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_backbone(toy_backbone(), path)
    return path


class LooksUpBackbones(ToyAssembly):
    """Data are toys; the backbone is looked up as for a real run."""

    def survey(self, config, machine):
        found = super().survey(config, machine)
        return dataclasses.replace(found, config=backbone_of(found.config, machine.backbone)[0])


def test_there_are_such_methods():
    assert {"ssdg", "mm_cdcn"} <= set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_a_backbones_file_leaves_such_a_method_as_it_was(file, name):
    config = RunConfig(method=name)
    assert backbone_of(config, file) == (config, None)
    with pytest.raises(RunConfigError, match=f"{name} has a network of its own"):
        backbone_of(dataclasses.replace(config, backbone="ab" * 32), file)


@pytest.mark.parametrize("order", [("ssdg", "vit_late"), ("vit_late", "ssdg")])
def test_in_one_grid_only_the_others_bear_its_hash(tmp_path, file, order):
    grid = GridConfig(methods=tuple(MethodRow(method=name) for name in order), protocols=("CPS_W",))
    jobs = plan(grid, MachineConfig(root=tmp_path, lists=tmp_path, backbone=file), tmp_path / "out",
                LooksUpBackbones())
    stated = {job.config.method: job.config.backbone for job in jobs}
    assert stated == {"ssdg": "", "vit_late": load_backbone(file).hash}
