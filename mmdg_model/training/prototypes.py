"""Prototypes: the mean class token of each domain class, one a modality (arXiv 2402.19298, Eq. 6).

An epoch's prototypes come in three steps, so that processes can join theirs in between:

    sums = sum_class_tokens(network, batches, classes, config, seed=seed, epoch=epoch)
    sums.all_reduce()                       # only with several processes
    prototypes = sums.prototypes(config, previous=prototypes)

Legend: b batch, m modalities (order of `network.MODALITIES`), k domain classes, d width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, distributed, nn

from mmdg_model.config import ModelConfig
from mmdg_model.network import MODALITIES
from mmdg_model.training.ssp_loss import DomainClasses

#: Keys of `Prototypes.state`.
_VALUES, _KNOWN, _ROWS, _ORDER = "prototypes.values", "prototypes.known", "prototype_rows", "prototype_modalities"


class UnseenRows(StrEnum):
    """What a domain class is worth of which no class token was seen."""

    EXCLUDED = "excluded"  # the paper: N_s + 1 classes stand in the loss's denominator, no other
    ZERO = "zero"  # the released code: a prototype of zeros, which decays with the moving average


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig:
    """How prototypes are taken; the defaults are the paper's.

    Attributes:
        batch_share: probability that a batch is read (paper: all; release: 0.5).
        fresh_weight: share of an epoch's own means, the rest being the previous prototypes' (paper: 1; release: 0.8).
        unseen: see the enumeration.

    Raises:
        ValueError: a share outside (0, 1].
    """

    batch_share: float = 1.0
    fresh_weight: float = 1.0
    unseen: UnseenRows = UnseenRows.EXCLUDED

    def __post_init__(self) -> None:
        for name in ("batch_share", "fresh_weight"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"prototypes.{name} is {getattr(self, name)!r}, expected above 0 and at most 1")

    @classmethod
    def release(cls) -> Self:
        """Half the batches, moving average, zeros for what was not seen."""
        return cls(batch_share=0.5, fresh_weight=0.8, unseen=UnseenRows.ZERO)


class PrototypeBatch(NamedTuple):
    """Training samples *without augmentation* and with all the modalities they have, on the network's device.

    Attributes:
        planes: `[b, m, 3, height, width]` from `inputs.prepare`.
        present: `bool [b, m]`.
        domain: `int64 [b]`, row of each sample (`DomainClasses.row`).
    """

    planes: Tensor
    present: Tensor
    domain: Tensor


class ClassTokenNetwork(Protocol):
    """What prototypes are taken of: `network.MMDG`, or another module that returns a `NetworkOutput`."""

    config: ModelConfig

    def __call__(self, planes: Tensor, present: Tensor, /) -> Any: ...

    def eval(self) -> Any: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Constants of one epoch's SSP loss.

    Attributes:
        classes: names of the rows.
        values: `float32 [m, k, d]`; 0 where unknown.
        known: `bool [m, k]`; whether the row stands in the loss.
    """

    classes: DomainClasses
    values: Tensor
    known: Tensor

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and text metadata, as safetensors stores them; `from_state` reads them back bit for bit."""
        return ({_VALUES: self.values, _KNOWN: self.known},
                {_ROWS: json.dumps(self.classes.rows), _ORDER: json.dumps(MODALITIES)})

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], classes: DomainClasses) -> Self:
        """Restores `state`; other entries are ignored.

        Raises:
            ValueError: missing entries, other rows or modalities than this run's, or shapes that do not fit.
        """
        if missing := [key for key in (_VALUES, _KNOWN, _ROWS, _ORDER) if key not in {**tensors, **metadata}]:
            raise ValueError(f"{missing[0]} is missing: this state was saved without prototypes")
        for key, wanted in ((_ROWS, classes.rows), (_ORDER, MODALITIES)):
            if metadata[key] != json.dumps(wanted):
                raise ValueError(f"{key} is {metadata[key]}, expected {json.dumps(wanted)}: the state belongs to a run "
                                 "with other training sources or another order of them")
        values_MKD, known_MK = tensors[_VALUES], tensors[_KNOWN]
        rows = (len(MODALITIES), len(classes.rows))
        if (values_MKD.ndim != 3 or tuple(values_MKD.shape[:2]) != rows or values_MKD.dtype != torch.float32
                or tuple(known_MK.shape) != rows or known_MK.dtype != torch.bool):
            raise ValueError(f"prototypes are {values_MKD.dtype} {tuple(values_MKD.shape)} and {known_MK.dtype} "
                             f"{tuple(known_MK.shape)}, expected float32 {(*rows, 'd')} and bool {rows}")
        return cls(classes, values_MKD, known_MK)


@dataclass(eq=False)
class PrototypeSums:
    """Sums and counts of class tokens: what processes add up before they divide.

    Attributes:
        classes: names of the rows.
        sums: `float64 [m, k, d]`.
        counts: `float64 [m, k]`, whole numbers.
    """

    classes: DomainClasses
    sums: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, classes: DomainClasses, width: int, device: torch.device | str = "cpu") -> Self:
        """No token yet."""
        shape = (len(MODALITIES), len(classes.rows))
        return cls(classes, torch.zeros(*shape, width, dtype=torch.float64, device=device),
                   torch.zeros(shape, dtype=torch.float64, device=device))

    def add(self, class_tokens_BMD: Tensor, domain_B: Tensor, present_BM: Tensor) -> None:
        """Counts a batch; an absent modality's token is not read."""
        tokens_BMD = torch.where(present_BM[:, :, None], class_tokens_BMD, 0.0).double()
        member_BK = nn.functional.one_hot(domain_B, len(self.classes.rows)).double()
        # A product, not index_add_: the latter adds in no fixed order on a GPU.
        self.sums += torch.einsum("bk,bmd->mkd", member_BK, tokens_BMD)
        self.counts += torch.einsum("bk,bm->mk", member_BK, present_BM.double())

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> None:
        """Adds up all processes of the group (torch.distributed, initialised): then equal in each, bit for bit."""
        for tensor in (self.sums, self.counts):
            distributed.all_reduce(tensor, group=group)

    def prototypes(self, config: PrototypeConfig, previous: Prototypes | None = None) -> Prototypes:
        """Means, joined with the previous epoch's as the configuration says.

        A row known before and not seen this time keeps its value (`EXCLUDED`) or decays (`ZERO`).

        Raises:
            ValueError: class tokens that are not finite, previous prototypes of other classes, or with `EXCLUDED` and
                all batches read, a training source without a single sample.
        """
        self._check(config, previous)
        seen_MK = self.counts > 0
        fresh_MKD = self.sums / self.counts.clamp_min(1.0)[:, :, None]
        if config.unseen is UnseenRows.ZERO:
            values_MKD, known_MK = fresh_MKD, torch.ones_like(seen_MK)
            if previous is not None:
                values_MKD = _joined(fresh_MKD, previous.values.double(), config.fresh_weight)
        elif previous is None:
            values_MKD, known_MK = fresh_MKD, seen_MK
        else:
            old_MKD = previous.values.double()
            joined_MKD = torch.where(previous.known[:, :, None],
                                     _joined(fresh_MKD, old_MKD, config.fresh_weight), fresh_MKD)
            values_MKD = torch.where(seen_MK[:, :, None], joined_MKD, old_MKD)
            known_MK = seen_MK | previous.known
        return Prototypes(self.classes, values_MKD.float(), known_MK)

    def _check(self, config: PrototypeConfig, previous: Prototypes | None) -> None:
        for index, modality in enumerate(MODALITIES):
            if not bool(self.sums[index].isfinite().all()):
                raise ValueError(f"the {modality} class tokens are not finite; training has diverged or an input is "
                                 "broken")
        if previous is not None and previous.classes != self.classes:
            raise ValueError(f"previous prototypes have rows {', '.join(previous.classes.rows)}, expected "
                             f"{', '.join(self.classes.rows)}")
        if config.batch_share == 1.0 and config.unseen is UnseenRows.EXCLUDED:
            samples_K = self.counts.amax(dim=0).tolist()
            for name, samples in zip(self.classes.rows, samples_K, strict=True):
                if not samples and name not in self.classes.held_out:
                    raise ValueError(f"no training sample belongs to class {name!r}, of "
                                     f"{', '.join(self.classes.rows)}; check the training lists")


@torch.no_grad()
def sum_class_tokens(network: ClassTokenNetwork, batches: Iterable[PrototypeBatch], classes: DomainClasses,
                     config: PrototypeConfig, *, seed: int, epoch: int, rank: int = 0) -> PrototypeSums:
    """Class tokens of a pass over (a share of) the training samples, in evaluation mode.

    Every module's training mode is as before afterwards, also after an error.

    Args:
        network: its parameters are read only.
        batches: this process's part of the training samples, each sample once.
        seed, epoch, rank: choose which batches are read where `config.batch_share` is below 1, whatever else is
            drawn meanwhile.
    """
    sums: PrototypeSums | None = None
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for index, batch in enumerate(batches):
            if config.batch_share < 1.0 and not _drawn(config.batch_share, seed, epoch, rank, index):
                continue
            tokens_BMD = network(batch.planes, batch.present).class_tokens
            sums = sums or PrototypeSums.empty(classes, tokens_BMD.shape[-1], tokens_BMD.device)
            sums.add(tokens_BMD, batch.domain, batch.present)
    finally:
        for module, mode in modes:
            module.training = mode
    return sums or PrototypeSums.empty(classes, network.config.width, next(network.parameters()).device)


def _drawn(share: float, *key: int) -> bool:
    return bool(np.random.default_rng(key).random() < share)


def _joined(fresh: Tensor, old: Tensor, fresh_weight: float) -> Tensor:
    return fresh_weight * fresh + (1.0 - fresh_weight) * old
