"""A run on disk: names and layout. Every file is written whole or not at all, or is a log of whole lines.

    run.json                  the `RunConfig`, canonical; decides what the run is
    environment.json          program and revision, packages, machine, data fingerprint, backbone, what trains; and each
                              start of the run with its date and machine settings
    metrics.jsonl             a line an update, two an epoch; equal bytes for equal runs
    timing.jsonl              seconds, samples a second and share of waiting; never equal
    troubles.jsonl            files that could not be used
    tensorboard/              the same scalars
    frozen.safetensors        tensors of the network that training leaves as they are, once
    epochs/0007.safetensors   all the others after epoch 7, with the hash of the whole network
    resume/                   what a killed run goes on from
    scores/<split>/0007-<scenario>.parquet
    done.json                 written last: updates, epochs, seconds
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from mmdg_model.training.protocols import Scenario
from mmdg_model.training.run_config import RunConfig, from_plain
from mmdg_model.training.scores import Split
from mmdg_model.whole_file import write_whole

_HASH_KEY = "mmdg_live_epoch"


class RunDirectoryError(ValueError):
    """A run's files are missing, damaged or of another run; the message names the file and the remedy."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and its small files."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "run.json"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing_file(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def troubles_file(self) -> Path:
        return self.path / "troubles.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def frozen_file(self) -> Path:
        return self.path / "frozen.safetensors"

    @property
    def resume(self) -> Path:
        return self.path / "resume"

    @property
    def done_file(self) -> Path:
        return self.path / "done.json"

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        return self.done_file.is_file()

    def epoch_file(self, epoch: int) -> Path:
        return self.path / "epochs" / f"{epoch:04d}.safetensors"

    def scores_file(self, split: Split, epoch: int, scenario: Scenario = Scenario.COMPLETE) -> Path:
        return self.path / "scores" / str(split) / f"{epoch:04d}-{scenario}.parquet"

    def config(self) -> RunConfig:
        """Raises `RunDirectoryError` where there is none, `RunConfigError` where it is not one."""
        return from_plain(self.read_json(self.config_file))

    def epochs(self) -> list[int]:
        """Epochs whose checkpoints are kept, ascending."""
        return sorted(int(path.stem) for path in (self.path / "epochs").glob("[0-9]*.safetensors"))

    def save_epoch(self, epoch: int, state: Mapping[str, Tensor], trained: set[str]) -> str:
        """Keeps a network's state after an epoch; returns the hash of the whole state.

        Args:
            state: the network's `state_dict`.
            trained: its entries that training changes; the others are kept once for all epochs.
        """
        model_hash = state_hash(state)
        if not self.frozen_file.is_file():
            write_safetensors(self.frozen_file, {name: tensor for name, tensor in state.items() if name not in trained})
        write_safetensors(self.epoch_file(epoch), {name: state[name] for name in sorted(trained)},
                          {_HASH_KEY: model_hash})
        return model_hash

    def load_epoch(self, epoch: int) -> tuple[dict[str, Tensor], str]:
        """The network's whole state after an epoch, and its hash, which is checked.

        Raises:
            RunDirectoryError: a file is missing, damaged, or the two do not belong together.
        """
        frozen, _ = read_safetensors(self.frozen_file)
        trained, metadata = read_safetensors(self.epoch_file(epoch))
        state = frozen | trained
        if (found := state_hash(state)) != metadata.get(_HASH_KEY):
            raise RunDirectoryError(f"{self.epoch_file(epoch)}: the network's hash is {found}, the file says "
                                    f"{metadata.get(_HASH_KEY)!r}; {self.frozen_file.name} is of another run, or one "
                                    "of the two was altered: train again")
        return state, found

    def read_json(self, path: Path) -> Any:
        """Raises `RunDirectoryError` where the file is missing or no JSON."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunDirectoryError(f"{path} is missing; {self.path} is no run, or not one of this program") from error
        except (ValueError, OSError) as error:
            raise RunDirectoryError(f"{path} is not readable JSON ({error})") from error


def differences(theirs: object, ours: object) -> str:
    """What of two plain configurations differs, key by key, for a person who named the wrong directory."""
    return "; ".join(f"{key or 'the whole'}: {old!r} there, {new!r} here"
                     for key, old, new in _differing(theirs, ours, ""))


def _differing(theirs: object, ours: object, place: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _differing(theirs.get(key), ours.get(key), f"{place}.{key}".lstrip("."))
    elif theirs != ours:
        yield place, theirs, ours


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(safetensors.torch.save({"tensor": tensor}))
    return digest.hexdigest()


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Whole or not at all; from whatever device."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, safetensors.torch.save(on_host, metadata=dict(metadata) if metadata else None))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata.

    Raises:
        RunDirectoryError: missing, or not a whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise RunDirectoryError(f"{path}: not a whole safetensors file ({error})") from error
