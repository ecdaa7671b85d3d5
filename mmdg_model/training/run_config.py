"""`RunConfig`: everything that decides the outcome of one training run, and nothing else.

Its canonical JSON is hashed: the hash names the run's directory in a benchmark. Where the data lies, how many workers
load it and how many processes train is not part of it (`MachineConfig`): the same run on another machine is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mmdg_model.config import ModelConfig
from mmdg_model.inputs import InfraredEncoding
from mmdg_model.scorer import Modality
from mmdg_model.training.methods.contract import OptimiserConfig
from mmdg_model.training.protocols import sub_protocol
from mmdg_model.training.samples import BONA_FIDE, UNKNOWN

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
ACCELERATORS = ("auto", "cpu", "cuda")


class RunConfigError(ValueError):
    """A run cannot be configured so; the message quotes the place (`recipe.batch_size`), the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training samples (never to prototype, validation or test samples).

    The photometric ones are drawn for each modality by itself, the geometric ones once for all three. Defaults: the
    recipe of the authors' line of work (docs/training.md).

    Attributes:
        offset: largest level added to each channel, either way (0 for none).
        gamma_low, gamma_high: range of the contrast exponent (1 and 1 for none).
        flip: probability of mirroring all modalities.
        crop_share: least side of a random square crop as a share of the image, then resized; 1 for none.
        rotation_degrees: largest rotation either way, joint; 0 for none.
        noise: largest standard deviation, in levels, of Gaussian noise; drawn from 0 to it; 0 for none.
        drop_depth, drop_infrared: probability that the modality is withheld from a sample.

    Raises:
        ValueError: a value out of range.
    """

    offset: float = 40.0
    gamma_low: float = 0.5
    gamma_high: float = 1.5
    flip: float = 0.5
    crop_share: float = 1.0
    rotation_degrees: float = 0.0
    noise: float = 0.0
    drop_depth: float = 0.0
    drop_infrared: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (("offset", 0.0, 255.0), ("flip", 0.0, 1.0), ("crop_share", 0.1, 1.0),
                                ("rotation_degrees", 0.0, 180.0), ("noise", 0.0, 255.0), ("drop_depth", 0.0, 1.0),
                                ("drop_infrared", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {low:g} to {high:g}")
        if not 0.0 < self.gamma_low <= self.gamma_high <= 10.0:
            raise ValueError(f"gamma_low and gamma_high are {self.gamma_low!r} and {self.gamma_high!r}, expected "
                             "0 < gamma_low <= gamma_high <= 10")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """How long and in what portions; defaults are the paper's (70 epochs of batches of 32).

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples of one update over all processes and accumulated parts.
        accumulate: parts that an update's samples are processed in, to save memory; the result is the same up to
            rounding.
        max_updates: stop after so many updates, within an epoch if need be; 0 for no limit.
        samples_per_epoch: draw so many training samples an epoch instead of all (0): for small machines.
        balanced: draw sources and labels equally often instead of shuffling the lists as they are (paper: not
            stated; the authors' line of work: no).
        keep_epochs: checkpoints are kept every so many epochs, and of the last.
    """

    epochs: int = 70
    batch_size: int = 32
    accumulate: int = 1
    max_updates: int = 0
    samples_per_epoch: int = 0
    balanced: bool = False
    keep_epochs: int = 1

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("max_updates", 0),
                            ("samples_per_epoch", 0), ("keep_epochs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least {least}")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate is {self.accumulate}, expected at most batch_size = {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A preset of `ModelConfig` and what is changed of it, by field name."""

    preset: str = "base"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> ModelConfig:
        """The complete configuration. Raises `ConfigError`."""
        return ModelConfig.from_dict(ModelConfig.preset(self.preset).to_dict() | dict(self.changes))


@dataclass(frozen=True, kw_only=True)
class InputChoice:
    """What the run may choose of the input specification; the rest follows from data and model.

    Attributes:
        infrared: grey, or with local descriptors (docs/model.md).
        depth_levels: True for trees of 8-bit depth images (the data sets); the specification then says
            `identity_8bit`.
        modalities: that the network is given, in training, validation and tests alike; the others are absent from
            every sample. Fewer than three show what one sensor can do by itself (docs/generalisation.md).

    Raises:
        ValueError: no modality, or one twice.
    """

    infrared: InfraredEncoding = InfraredEncoding.GREY
    depth_levels: bool = True
    modalities: tuple[Modality, ...] = tuple(Modality)

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities is {[str(each) for each in self.modalities]}, expected at least one, "
                             "and none twice")

    @property
    def withheld(self) -> frozenset[Modality]:
        """What no sample of the run has."""
        return frozenset(Modality) - frozenset(self.modalities)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Attributes:
        method: a name of `methods.registry.METHODS`.
        settings: of that method, by field name; what is not named has the method's default.
        protocol: a training of the benchmark by name, such as `CPS_W`.
        seed: of initial weights, order and augmentation.
        precision: one of `PRECISIONS`.
        backbone: SHA-256 of the backbone file that training starts from, empty for random weights. The file's place is
            the machine's business.
        start: SHA-256 of the checkpoint whose training this run goes on with, on other samples or by another recipe;
            empty for none.
        data: fingerprint of the lists and metadata, empty until they have been read.
        leave_out_species: attack species, as paths and metadata name them, that training and validation lists are read
            without; tests keep them. A source without an attack left is left out whole: its cameras would mean live.
        model, inputs, recipe, optimiser, augmentation: see their classes.

    Raises:
        ValueError, ProtocolError: a value out of range or an unknown protocol.
    """

    method: str = "mmdg"
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = "CPS_W"
    seed: int = 0
    precision: str = "32-true"
    backbone: str = ""
    start: str = ""
    data: str = ""
    leave_out_species: tuple[str, ...] = ()
    model: ModelChoice = field(default_factory=ModelChoice)
    inputs: InputChoice = field(default_factory=InputChoice)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}, expected at least 0")
        sub_protocol(self.protocol)
        for name in self.leave_out_species:
            if name in ("", BONA_FIDE, UNKNOWN) or self.leave_out_species.count(name) > 1:
                raise ValueError(f"leave_out_species names {name!r}; expected attack species, each once")

    def to_json(self) -> str:
        """Canonical: keys sorted, every value stated.

        But for three that came later and are left out where they say nothing, so that the hashes of earlier runs stay.
        """
        plain = msgspec.to_builtins(self)
        if not self.start:
            del plain["start"]
        if self.leave_out_species:
            plain["leave_out_species"] = sorted(self.leave_out_species)
        else:
            del plain["leave_out_species"]
        if self.inputs.withheld:
            plain["inputs"]["modalities"] = [each for each in Modality if each in self.inputs.modalities]
        else:
            del plain["inputs"]["modalities"]
        return json.dumps(plain, sort_keys=True, indent=2, allow_nan=False)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Where a run finds its data and what it runs on; changes nothing of its result but rounding.

    Attributes:
        root, lists: data root and folder of the lists. metadata: CSV of species and subjects, if any.
        backbone: the backbone's file, None where the run starts from random weights.
        start: the file of the checkpoint that `RunConfig.start` is about.
        accelerator: `auto`, `cpu` or `cuda`. devices: processes on this machine, one a device. nodes: machines.
        workers: loader processes of each process; 0 loads in the process itself.
        threads: of torch in each process; 0 leaves torch's own choice.
        cache_mib: mebibytes of decoded samples that each process keeps; 0 decodes anew in every epoch.
        save_every_s: seconds between two saves of what a killed run goes on from; it is saved after each epoch, too.
        deterministic: on a GPU, only kernels that add in a fixed order, so that a resumed run repeats bit for bit.
        tensorboard: also log scalars for TensorBoard.

    Raises:
        ValueError: a value out of range.
    """

    root: Path
    lists: Path
    metadata: Path | None = None
    backbone: Path | None = None
    start: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    threads: int = 0
    cache_mib: int = 0
    save_every_s: float = 300.0
    deterministic: bool = True
    tensorboard: bool = True

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise ValueError(f"accelerator is {self.accelerator!r}, expected one of {', '.join(ACCELERATORS)}")
        for name, least in (("devices", 1), ("nodes", 1), ("workers", 0), ("threads", 0), ("cache_mib", 0),
                            ("save_every_s", 0.0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least {least}")


def from_plain(values: object, *, base: RunConfig | None = None) -> RunConfig:
    """A configuration from plain values (of YAML or JSON), over a base's where a key is not named.

    Raises:
        RunConfigError: an unknown key, a wrong type, or a value out of range, with its place.
    """
    plain = msgspec.to_builtins(base or RunConfig())
    _merge(plain, values, "")
    try:
        return msgspec.convert(plain, RunConfig)
    except (msgspec.ValidationError, ValueError) as error:
        raise RunConfigError(f"run configuration: {error}") from error


def _merge(into: dict[str, Any], values: object, place: str) -> None:
    """Overwrites what is named. Mappings that are free (`settings`, `changes`) are replaced, not merged."""
    if not isinstance(values, Mapping):
        raise RunConfigError(f"run configuration: {place.rstrip('.') or 'the whole'} is {values!r}, expected a mapping")
    for key, value in values.items():
        if key not in into:
            raise RunConfigError(f"run configuration: {place}{key} is an unknown key; known: {', '.join(into)}")
        if isinstance(into[key], dict) and key not in ("settings", "changes"):
            _merge(into[key], value, f"{place}{key}.")
        else:
            into[key] = value
