"""One small checkpoint and its exports, made once: converting takes seconds."""

import pytest

from mmdg_model.test_checkpoint import make_test_checkpoint
from tests.mmdg_model.backends.builders import varied_crops
from tests.mmdg_model.builders import MICRO


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("backends") / "micro.safetensors"
    make_test_checkpoint(path, MICRO)
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path):
    from mmdg_model.checkpoint import load_checkpoint

    return load_checkpoint(checkpoint_path)


@pytest.fixture(scope="session")
def exports(checkpoint, tmp_path_factory):
    """Directory of the exported model by precision."""
    from mmdg_model.backends.openvino_export import convert, export_openvino

    folder = tmp_path_factory.mktemp("exports")
    model = convert(checkpoint)
    for precision in ("float32", "bfloat16", "int8"):
        export_openvino(checkpoint, folder / precision, precision=precision, model=model,
                        calibration=varied_crops(12, seed=100) if precision == "int8" else (),
                        calibration_source="blobs")
    return {precision: folder / precision for precision in ("float32", "bfloat16", "int8")}
