"""A checkpoint to an exported OpenVINO model: captured, converted, quantised if asked, verified, then put in place."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmdg_model.backends.engine_scorer import KNOWN_ANSWER_TOLERANCE
from mmdg_model.backends.exported_model import PRECISIONS, ExportedModel, file_hash, write_manifest
from mmdg_model.backends.openvino_engine import MODEL_FILE, WEIGHTS_FILE, OpenVinoEngine
from mmdg_model.backends.openvino_int8 import quantise
from mmdg_model.backends.openvino_sdk import openvino
from mmdg_model.backends.torch_engine import TorchEngine, cannot_be_captured_because
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.inputs import PreparedInputs, prepare
from mmdg_model.known_answer import KnownAnswer, known_answer_crops
from mmdg_model.network import LIVE_COLUMN
from mmdg_model.runtime_graph import RuntimeGraph, build_runtime_graph
from mmdg_model.scorer import CropPlanes
from mmdg_model.torch_scorer import build_network

#: Largest accepted deviation of an exported model from the checkpoint's known answer, relative to its largest logit.
#: For int8 a coarse guard against a broken graph; how good it is, the comparison on calibration crops says.
EXPORT_TOLERANCE = KNOWN_ANSWER_TOLERANCE | {"int8": 0.1}

#: Fewer crops than this give no ranges worth having.
FEWEST_CALIBRATION_CROPS = 8


class ExportError(ValueError):
    """A checkpoint cannot be exported as asked; the message quotes the value and the remedy."""


class _TwoOutputs(nn.Module):
    """What a runtime has to return: logits and class-token certainty."""

    def __init__(self, graph: RuntimeGraph) -> None:
        super().__init__()
        self.network = graph

    def forward(self, planes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(planes, present)
        return output.logits, output.class_certainty


def export_openvino(checkpoint: Checkpoint, directory: Path, *, precision: str = "float32",
                    calibration: Sequence[CropPlanes] = (), calibration_source: str = "",
                    threads: int = 1, model: openvino.Model | None = None) -> ExportedModel:
    """Writes `directory` whole or not at all, after the model in it has reproduced the checkpoint's known answer.

    Args:
        checkpoint: loaded from a file, so that its hash is known.
        directory: must not exist.
        precision: `float32`, `bfloat16` or `int8`.
        calibration: for int8, crops as the camera delivers them, at least `FEWEST_CALIBRATION_CROPS`.
        calibration_source: where they come from, kept in the manifest.
        threads: for calibration and verification.
        model: what `convert` made of this checkpoint, to write several precisions with one conversion; not changed.

    Raises:
        ExportError: an unknown precision, a directory that exists, too few crops, sampled certainty, a checkpoint
            that was never saved, or a converted model that computes something else.
    """
    _check(checkpoint, directory, precision, calibration)
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        model = convert(checkpoint) if model is None else model.clone()
        batches = [prepare([crop], checkpoint.input_spec) for crop in calibration] if precision == "int8" else []
        if batches:
            quantise(model, batches, width=checkpoint.config.width, mlp_ratio=checkpoint.config.mlp_ratio,
                     threads=threads)
        openvino.save_model(model, unfinished / MODEL_FILE, compress_to_fp16=False)
        del model
        engine = OpenVinoEngine((unfinished / MODEL_FILE).read_bytes(), (unfinished / WEIGHTS_FILE).read_bytes(),
                                precision=precision, threads=threads)
        answer = _verified_answer(engine, checkpoint, precision)
        about = {"source": calibration_source, "crops": len(batches)} | _agreement(
            engine, checkpoint, batches, threads) if batches else {}
        exported = ExportedModel(
            backend="openvino", precision=precision, checkpoint_hash=checkpoint.hash, purpose=checkpoint.purpose,
            input_spec=checkpoint.input_spec, known_answer=answer, calibration=about,
            operating_point=checkpoint.operating_point,
            files={name: file_hash(unfinished / name) for name in (MODEL_FILE, WEIGHTS_FILE)},
            made_with={"openvino": openvino.get_version(), "torch": torch.__version__})
        exported = replace(exported, hash=write_manifest(exported, unfinished))
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return exported


def convert(checkpoint: Checkpoint) -> openvino.Model:
    """The checkpoint's runtime graph as an OpenVINO model, float32, for any batch size."""
    graph = build_runtime_graph(build_network(checkpoint))
    graph.checks_input = False
    size = checkpoint.config.image_size
    example = (torch.zeros(2, 3, 3, size, size), torch.ones(2, 3, dtype=torch.bool))
    batch = torch.export.Dim("batch", min=1, max=1024)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's exporter warns of its own internals
        program = torch.export.export(_TwoOutputs(graph).eval(), example, dynamic_shapes=({0: batch}, {0: batch}),
                                      strict=False)
        return openvino.convert_model(program)


def _check(checkpoint: Checkpoint, directory: Path, precision: str, calibration: Sequence[CropPlanes]) -> None:
    if precision not in PRECISIONS:
        raise ExportError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if directory.exists():
        raise ExportError(f"{directory} exists already; name a new directory, or remove it first")
    if not checkpoint.hash:
        raise ExportError("the checkpoint has no hash: save it and load it from its file, so that the exported model "
                          "can say what it was made from")
    if why := cannot_be_captured_because(checkpoint.config):
        raise ExportError(f"{why}, so it cannot be exported; backend torch runs the checkpoint as it is")
    if precision == "int8" and len(calibration) < FEWEST_CALIBRATION_CROPS:
        raise ExportError(f"{len(calibration)} calibration crops, int8 needs at least {FEWEST_CALIBRATION_CROPS}: its "
                          "ranges are measured on them")


def _verified_answer(engine: OpenVinoEngine, checkpoint: Checkpoint, precision: str) -> KnownAnswer:
    """The exported model's own answer, once it is near enough to the checkpoint's."""
    logits, _ = engine.run(prepare(known_answer_crops(checkpoint.input_spec), checkpoint.input_spec))
    deviation, tolerance = checkpoint.known_answer.deviation(logits), EXPORT_TOLERANCE[precision]
    if not deviation <= tolerance:
        raise ExportError(f"the exported model's known-answer logits are {logits.tolist()}, the checkpoint's "
                          f"{checkpoint.known_answer.logits}; relative deviation {deviation:.3g}, allowed "
                          f"{tolerance:g} in {precision}: nothing was written; export in float32")
    return KnownAnswer.of(logits)


def _agreement(engine: OpenVinoEngine, checkpoint: Checkpoint, batches: Sequence[PreparedInputs],
               threads: int) -> dict[str, float | int]:
    """How far quantisation moved the scores of the calibration crops from float32."""
    reference = TorchEngine(checkpoint, precision="float32", threads=threads)
    exact, quantised = (np.array([_margin(each.run(inputs)[0]) for inputs in batches])
                        for each in (reference, engine))
    difference = np.abs(_probability(quantised) - _probability(exact))
    return {"logit_standard_deviation": round(float(exact.std()), 4),
            "largest_logit_difference": round(float(np.abs(quantised - exact).max()), 4),
            "largest_probability_difference": round(float(difference.max()), 4),
            "decisions_changed_at_one_half": int(((exact >= 0) != (quantised >= 0)).sum())}


def _margin(logits: NDArray[np.float32]) -> float:
    return float(logits[0, LIVE_COLUMN] - logits[0, 1 - LIVE_COLUMN])


def _probability(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(margin, -700.0, 700.0)))
