"""What a killed run goes on from: two generations, written in turn, each one safetensors file with JSON in its header.

A file is written whole or not at all, and the other generation stays while it is: whenever the process dies, one whole
file is there. Kept is what training changes; what it leaves as it is lies in the run's `frozen.safetensors`. Of the
optimisers their tensors are kept, not their settings, which the run's configuration states. No random state is kept:
each update draws from a generator of its own (`trainer`), and methods keep what else they draw from in their `state`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from mmdg_model.training.compute import Compute
from mmdg_model.training.methods.contract import Method
from mmdg_model.training.run_directory import RunDirectoryError, read_safetensors, write_safetensors

FORMAT_VERSION = 1
_KEY = "mmdg_live_resume"


class ResumableCompute(Compute, Protocol):
    """A `Compute` with a state of its own, such as a loss scale."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        ...


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a run has come.

    Attributes:
        epoch: the one that is being trained, from 0.
        updates_in_epoch: done of it.
        updates: done in all.
        epoch_started: whether `Method.start_epoch` has been called for it.
        metrics_bytes: length of `metrics.jsonl` then; what is behind is of updates that are done again.
        seconds: of training, all starts together.
    """

    epoch: int = 0
    updates_in_epoch: int = 0
    updates: int = 0
    epoch_started: bool = False
    metrics_bytes: int = 0
    seconds: float = 0.0


class _About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    generation: int
    run: str
    position: Position
    optimiser_values: dict[str, dict[str, dict[str, Any]]]
    method: dict[str, str]
    compute: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """One generation, as read."""

    position: Position
    tensors: Mapping[str, Tensor]
    about: _About

    def part(self, prefix: str) -> dict[str, Tensor]:
        """See `under`."""
        return under(self.tensors, prefix)


def trained_names(network: torch.nn.Module) -> set[str]:
    """Entries of a network's `state_dict` that training may change: parameters with gradients, and all buffers."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return set(network.state_dict()) - frozen


class ResumeFiles:
    """The two files in `folder`, of the run with the hash `run`."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self._run = run
        self._generation = 0

    def save(self, position: Position, method: Method, compute: Mapping[str, Any]) -> None:
        """Writes the next generation over the one before the last."""
        state = method.network.state_dict()
        tensors = {f"network/{name}": state[name] for name in trained_names(method.network)}
        values: dict[str, dict[str, dict[str, Any]]] = {}
        for name, optimiser in method.optimisers.items():
            own, values[name] = optimiser_state(optimiser)
            tensors |= {f"optimiser/{name}/{place}": tensor for place, tensor in own.items()}
        method_tensors, method_texts = method.state()
        tensors |= {f"method/{name}": tensor for name, tensor in method_tensors.items()}
        generation = self._generation + 1
        about = _About(format_version=FORMAT_VERSION, generation=generation, run=self._run, position=position,
                       optimiser_values=values, method=dict(method_texts), compute=dict(compute))
        write_safetensors(self._file(generation), tensors, {_KEY: json.dumps(msgspec.to_builtins(about))})
        self._generation = generation

    def load(self, on_damage: Callable[[str], None]) -> Saved | None:
        """The newest generation that is whole; None where nothing was saved yet.

        Args:
            on_damage: told of a generation that cannot be used.

        Raises:
            RunDirectoryError: neither generation is whole, or they are of another run.
        """
        found: list[Saved] = []
        damaged: list[str] = []
        for index in (0, 1):
            if self._file(index).exists():
                try:
                    found.append(self._read(self._file(index)))
                except RunDirectoryError as error:
                    damaged.append(str(error))
        if damaged and not found:
            raise RunDirectoryError(f"{'; '.join(damaged)}: nothing whole is left to go on from; remove "
                                    f"{self._folder} to train from the start")
        for text in damaged:
            on_damage(text)
        if not found:
            return None
        newest = max(found, key=lambda saved: saved.about.generation)
        if newest.about.run != self._run:
            raise RunDirectoryError(f"{self._folder} is of the run {newest.about.run}, this is {self._run}; remove the "
                                    "folder to train from the start, or choose another directory")
        self._generation = newest.about.generation
        return newest

    def remove(self) -> None:
        """When nothing is left to go on with."""
        for index in (0, 1):
            self._file(index).unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _file(self, generation: int) -> Path:
        return self._folder / f"{generation % 2}.safetensors"

    @staticmethod
    def _read(path: Path) -> Saved:
        tensors, metadata = read_safetensors(path)
        try:
            about = msgspec.json.decode(metadata.get(_KEY, ""), type=_About)
        except msgspec.DecodeError as error:
            raise RunDirectoryError(f"{path}: metadata {_KEY!r}: {error}") from error
        if about.format_version != FORMAT_VERSION:
            raise RunDirectoryError(f"{path}: format_version is {about.format_version}, this program reads "
                                    f"{FORMAT_VERSION}")
        return Saved(position=about.position, tensors=tensors, about=about)


def restore(saved: Saved, method: Method, frozen: Mapping[str, Tensor]) -> None:
    """Puts a generation into a freshly built method.

    Args:
        saved: as loaded.
        method: built as the run's was.
        frozen: of `RunDirectory.frozen_file`.

    Raises:
        RunDirectoryError: the tensors do not fit the method.
    """
    try:
        method.network.load_state_dict(dict(frozen) | saved.part("network/"))
        if set(saved.about.optimiser_values) != set(method.optimisers):
            raise ValueError(f"optimisers {sorted(saved.about.optimiser_values)}, the method has "
                             f"{sorted(method.optimisers)}")
        for name, optimiser in method.optimisers.items():
            load_optimiser_state(optimiser, saved.part(f"optimiser/{name}/"), saved.about.optimiser_values[name])
        method.load_state(saved.part("method/"), saved.about.method)
    except (ValueError, RuntimeError, KeyError) as error:
        raise RunDirectoryError(f"the saved run does not fit the method ({error}); it was saved by another version of "
                                "the program: go on with that one, or train anew in another directory") from error


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimiser_state(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """What an optimiser remembers: tensors as `<parameter>/<name>`, and other values by parameter and name.

    Its settings are left out: the run's configuration states them.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in optimiser.state_dict()["state"].items():
        values[str(index)] = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        tensors |= {f"{index}/{key}": value for key, value in entries.items() if isinstance(value, Tensor)}
    return tensors, values


def load_optimiser_state(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor],
                         values: Mapping[str, Mapping[str, Any]]) -> None:
    """Restores `optimiser_state` into an optimiser of the same parameters.

    Raises:
        KeyError, ValueError: they do not fit it.
    """
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in values.items()}
    for place, tensor in tensors.items():
        index, _, key = place.partition("/")
        state[int(index)][key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
