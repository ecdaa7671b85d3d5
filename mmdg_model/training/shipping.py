"""A finished run becomes shipped weights: float16, calibrated, with manifest and model card, verified as reloaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from mmdg_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose
from mmdg_model.shipped_weights import (
    CARD_NAME,
    FORMAT_VERSION,
    LARGEST_BYTES,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Manifest,
    verify,
    write_manifest,
)
from mmdg_model.torch_scorer import TorchScorer, build_network, measure_known_answer
from mmdg_model.training.environment import program
from mmdg_model.training.epoch_export import export_epoch
from mmdg_model.training.model_card import model_card
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.whole_file import write_whole

#: The recipes of `make train-default`: the first stage, and the one that goes on from its checkpoint.
RECIPE = "default_weights"
REFINED_RECIPE = "default_weights_refined"
#: Largest accepted change of the known-answer logits by rounding to float16, relative to the largest or 1.
FLOAT16_TOLERANCE = 0.02


class ShippingError(ValueError):
    """A run cannot be shipped; the message says why and what to do."""


def in_float16(checkpoint: Checkpoint, scratch: Path) -> tuple[Checkpoint, float]:
    """The checkpoint stored in half precision, its known answer measured on the reloaded file.

    Args:
        scratch: a file to write and read back; it is removed.

    Returns: the checkpoint, and how far its known-answer logits lie from the given one's, relative to the largest or 1.

    Raises:
        ShippingError: the logits move by more than `FLOAT16_TOLERANCE`.
        CheckpointError: weights beyond float16's range.
    """
    halved = dataclasses.replace(checkpoint, weights={
        name: weight.to(torch.float16) for name, weight in checkpoint.weights.items()})
    try:
        save_checkpoint(halved, scratch)
        reloaded = load_checkpoint(scratch)
    finally:
        scratch.unlink(missing_ok=True)
    answer = measure_known_answer(build_network(reloaded), reloaded.input_spec)
    deviation = checkpoint.known_answer.deviation(torch.tensor(answer.logits, dtype=torch.float32).numpy())
    if not deviation <= FLOAT16_TOLERANCE:
        raise ShippingError(f"rounding to float16 moves the known-answer logits by {deviation:.3g} of the largest, "
                            f"allowed is {FLOAT16_TOLERANCE:g}; weights this sensitive are not shipped: train "
                            "with more weight decay")
    return dataclasses.replace(reloaded, known_answer=answer, hash=""), deviation


def ship(directory: RunDirectory, out: Path, *, operating_point: OperatingPoint | None = None,
         specification: Path | None = None, evaluation: Path | None = None, epoch: int | None = None) -> Manifest:
    """Writes weights, manifest and card of a finished run into a folder, and verifies what it wrote.

    Args:
        directory: a run that was trained to its end, on simulated data alone.
        out: folder of the three files; replaced. The manifest is removed first and written last, so that a killed
            process leaves no pair that does not belong together.
        operating_point: from calibration on validation sessions; None before it is known.
        specification: the difficulty specification, for its hash.
        evaluation: JSON figures of these very weights, for the card.
        epoch: the last kept one by default.

    Raises:
        ShippingError: an unfinished run, real data, too large a file, unreadable figures.
        RunDirectoryError, CheckpointError, KnownAnswerError, OSError: see there.
    """
    if not directory.finished:
        raise ShippingError(f"{directory.path} is not trained to its end; the command that began it goes on with it")
    chosen = directory.epochs()[-1] if epoch is None else epoch
    trained = export_epoch(directory, chosen)
    if trained.purpose is not Purpose.SIMULATED:
        raise ShippingError(f"{directory.path} was trained on data that no tree calls simulated: purpose is "
                            f"{trained.purpose}. Shipped weights are made of simulated data alone; mmdg train export "
                            "writes others")
    figures, figures_hash = _figures(evaluation)
    halved, deviation = in_float16(trained, out / f"{WEIGHTS_NAME}.reloaded")
    halved = dataclasses.replace(halved, operating_point=operating_point, created_by=program())
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    weights = out / WEIGHTS_NAME
    sha256 = save_checkpoint(halved, weights)
    TorchScorer(load_checkpoint(weights, expected_hash=sha256))  # it reproduces its known answer, or raises
    if figures is not None and sha256 not in json.dumps(figures):
        raise ShippingError(f"{evaluation} does not name SHA-256 {sha256}: its figures are of other weights; evaluate "
                            f"{weights}, which is written, and ship again")
    size = weights.stat().st_size
    if size > LARGEST_BYTES:
        weights.unlink()
        raise ShippingError(f"the weights take {size} bytes, shipped are at most {LARGEST_BYTES}: train a smaller "
                            "preset, such as micro")
    about, start = halved.training, directory.config().start
    recipe = recipe_text(REFINED_RECIPE if start else RECIPE)
    manifest = Manifest(
        format_version=FORMAT_VERSION, sha256=sha256, bytes=size, purpose=halved.purpose, run=about["run"],
        method=about["method"], protocol=about["protocol"], sources=tuple(about["sources"]), seed=about["seed"],
        epoch=about["epoch"], start_sha256=start or None, recipe_sha256=hashlib.sha256(recipe.encode()).hexdigest(),
        run_config_sha256=_hash(directory.config_file), data_fingerprint=about["data"], simulated=about["simulated"],
        specification_sha256=_hash(specification) if specification else None, trained_by=about["trained_by"],
        made_by=halved.created_by, float16_deviation=deviation, operating_point=operating_point,
        evaluation_sha256=figures_hash)
    write_whole(out / CARD_NAME, model_card(manifest, figures, shape=_shape(halved)).encode())
    write_manifest(manifest, out)
    return verify(out)


def recipe_text(name: str = RECIPE) -> str:
    """A run recipe that comes with the program, as YAML.

    Raises:
        ShippingError: none of this name.
    """
    path = resources.files("mmdg_model.training") / "recipes" / f"{name}.yaml"
    if not path.is_file():
        raise ShippingError(f"no recipe {name!r} comes with the program; there are {RECIPE}, {REFINED_RECIPE}")
    return path.read_text(encoding="utf-8")


def _figures(path: Path | None) -> tuple[dict[str, Any] | None, str | None]:
    if path is None:
        return None, None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShippingError(f"{path}: no readable JSON ({error}); evaluate again") from error
    if not isinstance(values, dict):
        raise ShippingError(f"{path}: {type(values).__name__}, expected an object of figures; evaluate again")
    return values, _hash(path)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _shape(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    count = sum(weight.numel() for weight in checkpoint.weights.values())
    depth = f", {config.depth} layers" if isinstance(config, ModelConfig) else ""
    return (f"{checkpoint.training['method']}, {config.image_size} pixels, width {config.width}{depth}, "
            f"{count / 1e6:.2f} million numbers")
