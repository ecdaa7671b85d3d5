"""ReGrad (arXiv 2402.19298, Section 3.4, Eq. 5): gradients of several modalities to one update a parameter tensor.

Pure functions of gradients. Modulation is not linear: reduce gradients, losses and certainties over accumulation steps
and processes first (`step_gradients`), modulate once, then let the optimiser apply weight decay.

With f(a, b) the part of b that is kept beside a,

    f(a, b) = proj_a(b)        if a·b > 0     (the helpful, parallel part)
            = b - proj_a(b)    if a·b <= 0    (what is left without the conflict),

the *fast* modality the one whose SSP loss is smallest, the others *slow*, and U_m the certainty of modality m:

    owner o slow:               G = g_o + Σ_{j≠o} U_j f(g_o, g_j)
    owner fast, or no owner:    G = s + U_f f(s, g_f),    s = Σ of the slow ones

With two modalities both lines are Eq. 5. Dot products are taken over one parameter tensor, in float64, and a projection
is left out only where the norm is exactly 0: the result scales with the gradients.

Legend: k tensors handled together, m modalities (order of `network.MODALITIES`), v values of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from mmdg_model.uncertainty import BatchAggregation


class ReGradTarget(StrEnum):
    """Which loss's gradients are modulated; the other's are added as they are."""

    CROSS_ENTROPY = "ce"  # the paper's text
    SSP = "ssp"  # the released code
    BOTH = "both"


class ReGradCases(StrEnum):
    """Which of the two cases of f is modulated; in the other one a gradient is added whole, without its U (Table 4)."""

    ALL = "all"
    CONFLICTED_ONLY = "conflicted_only"
    UNCONFLICTED_ONLY = "unconflicted_only"
    OFF = "off"  # the plain gradient of the sum of losses, from one backward pass


class CertaintyFactor(StrEnum):
    """Whether the factors U_m act (Table 5, column of Eq. 5)."""

    MODALITY = "modality"
    ONE = "one"  # U = 1


class SharedTensors(StrEnum):
    """What happens to trained tensors that no modality owns: last block, final norm, a plain ViT."""

    PLAIN_SUM = "plain_sum"  # as in the released code
    SYMMETRIC = "symmetric"  # the form without an owner; with it ReGrad applies to a ViT without adapters (Table 4)


class ReGradError(ValueError):
    """Gradients, losses or certainties that cannot be modulated; the message quotes the value."""


@dataclass(frozen=True, kw_only=True)
class ReGradConfig:
    """Choices of the modulation; the defaults are the paper's (docs/training-objective.md).

    Attributes:
        target, cases, certainty, shared: see the enumerations.
        aggregation: how certainties of a step's class tokens become U_m (`uncertainty.BatchAggregation`).
    """

    target: ReGradTarget = ReGradTarget.CROSS_ENTROPY
    cases: ReGradCases = ReGradCases.ALL
    certainty: CertaintyFactor = CertaintyFactor.MODALITY
    aggregation: BatchAggregation = BatchAggregation.EXP_OF_MEAN
    shared: SharedTensors = SharedTensors.PLAIN_SUM


class Modulation(NamedTuple):
    """Updates of k tensors and what happened to them.

    Attributes:
        update: `[k, v]` float64.
        dots: `[k, p]` a·b of each of the p pairs handed to f; positive means helpful, negative conflicting.
        comparable: `bool [k, p]`; both gradients of the pair differ from 0.
    """

    update: Tensor
    dots: Tensor
    comparable: Tensor


@dataclass(frozen=True, kw_only=True)
class ReGradRecord:
    """What to log of one modulated step.

    Attributes:
        fast: the fast modality; None when fewer than two were present, and nothing was modulated.
        conflict_rate: share of the pairs handed to f, both gradients non-zero, with a·b < 0; None without such a pair.
        relative_change: |G - Σ g_m| / |Σ g_m| over all modulated tensors; None if the sum is 0.
        modulated_tensors: how many tensors took part.
        certainty: U_m as applied, in the order of `MODALITIES`.
        ssp_losses: mean SSP loss of each modality that chose the fast one, NaN where it was absent.
    """

    fast: Modality | None
    conflict_rate: float | None
    relative_change: float | None
    modulated_tensors: int
    certainty: tuple[float, ...]
    ssp_losses: tuple[float, ...]


def fast_modality(ssp_losses: Sequence[float], present: Sequence[bool]) -> int | None:
    """Index of the smallest SSP loss among the modalities that are present; of equal ones the first.

    None when fewer than two modalities are present: there is nothing to balance.

    Raises:
        ReGradError: a present modality's loss is not finite.
    """
    candidates = [index for index, here in enumerate(present) if here]
    if bad := [index for index in candidates if not math.isfinite(ssp_losses[index])]:
        raise ReGradError(f"SSP loss of modality {bad[0]} is {ssp_losses[bad[0]]!r}, expected a finite number; "
                          "training has diverged or a prototype is broken")
    return min(candidates, key=lambda index: ssp_losses[index]) if len(candidates) > 1 else None


def modulate_tensors(gradients_KMV: Tensor, *, owner: int | None, fast: int, certainty: Sequence[float],
                     cases: ReGradCases = ReGradCases.ALL) -> Modulation:
    """Eq. 5 for k tensors of one size and one owner.

    Args:
        gradients_KMV: `[k, m, v]`, any float type; zeros where a modality does not reach the tensor.
        owner: index of the modality the tensors belong to; None: shared (symmetric form).
        fast: index of the fast modality.
        certainty: U_m, in [0, 1].
        cases: `ALL`, or one case only.

    Non-finite gradients give non-finite updates: a gradient scaler still sees them.
    """
    gradients = gradients_KMV.double()
    if owner is None or owner == fast:
        slow = [index for index in range(gradients.shape[1]) if index != fast]
        main_KV, others = gradients[:, slow].sum(dim=1), [fast]
    else:
        main_KV, others = gradients[:, owner], [index for index in range(gradients.shape[1]) if index != owner]
    update_KV = main_KV
    norm_K = main_KV.square().sum(dim=-1)
    dots, comparable = [], []
    for index in others:
        other_KV = gradients[:, index]
        dot_K = (main_KV * other_KV).sum(dim=-1)
        update_KV = update_KV + _kept(main_KV, norm_K, other_KV, dot_K, certainty[index], cases)
        dots.append(dot_K)
        comparable.append((norm_K > 0) & (other_KV != 0).any(dim=-1))
    return Modulation(update_KV, torch.stack(dots, dim=-1), torch.stack(comparable, dim=-1))


def modulate(gradients: Mapping[str, Tensor], owners: Mapping[str, Modality | None], *, ssp_losses: Sequence[float],
             present: Sequence[bool], certainty: Sequence[float],
             cases: ReGradCases = ReGradCases.ALL) -> tuple[dict[str, Tensor], ReGradRecord]:
    """One update for each named tensor from its gradients by modality, all of them already reduced.

    Args:
        gradients: `[m, *shape]` of each tensor to modulate.
        owners: modality that each of these tensors belongs to, or None.
        ssp_losses: mean SSP loss of each modality over the samples that have it; ignored where absent.
        present: whether any sample of the step has the modality.
        certainty: U_m of each modality.
        cases: with `OFF`, or fewer than two modalities present, updates are plain sums.

    Returns:
        updates `[*shape]` in the gradients' type, and the record to log.

    Raises:
        ReGradError: a loss that is not finite, or a certainty outside [0, 1].
    """
    if bad := [value for value in certainty if not 0.0 <= value <= 1.0]:
        raise ReGradError(f"certainty is {bad[0]!r}, expected 0 to 1")
    fast = None if cases is ReGradCases.OFF else fast_modality(ssp_losses, present)
    updates: dict[str, Tensor] = {}
    # change², plain², conflicts, comparable pairs; kept on the device: one transfer a step.
    tally = [torch.zeros((), dtype=torch.float64)] * 4
    for names, stacked_KMV in _groups(gradients, owners, fast):
        plain_KV = stacked_KMV.double().sum(dim=1)
        update_KV, conflicts, pairs = plain_KV, torch.zeros_like(plain_KV[0, 0]), torch.zeros_like(plain_KV[0, 0])
        if fast is not None:
            owner = owners[names[0]]
            update_KV, dots_KP, comparable_KP = modulate_tensors(
                stacked_KMV, owner=None if owner is None else MODALITIES.index(owner), fast=fast, certainty=certainty,
                cases=cases)
            conflicts, pairs = ((dots_KP < 0) & comparable_KP).sum(), comparable_KP.sum()
        change = (update_KV - plain_KV).square().sum()
        tally = [total.to(value.device) + value for total, value in zip(
            tally, (change, plain_KV.square().sum(), conflicts, pairs), strict=True)]
        for name, update_V in zip(names, update_KV, strict=True):
            updates[name] = update_V.reshape(gradients[name].shape[1:]).to(gradients[name].dtype)
    change_square, plain_square, conflicting, compared = torch.stack(tally).tolist()
    return updates, ReGradRecord(
        fast=None if fast is None else MODALITIES[fast],
        conflict_rate=conflicting / compared if compared else None,
        relative_change=math.sqrt(change_square / plain_square) if plain_square else None,
        modulated_tensors=0 if fast is None else len(updates),
        certainty=tuple(float(value) for value in certainty),
        ssp_losses=tuple(float(loss) if here else math.nan for loss, here in zip(ssp_losses, present, strict=True)))


def _kept(main_KV: Tensor, norm_K: Tensor, other_KV: Tensor, dot_K: Tensor, certainty: float,
          cases: ReGradCases) -> Tensor:
    """U · f(main, other), or `other` whole in the case that `cases` leaves alone."""
    coefficient_K = torch.where(norm_K > 0, dot_K / torch.where(norm_K > 0, norm_K, 1.0), 0.0)
    parallel_KV = coefficient_K[:, None] * main_KV
    helpful_KV = other_KV if cases is ReGradCases.CONFLICTED_ONLY else certainty * parallel_KV
    conflicting_KV = other_KV if cases is ReGradCases.UNCONFLICTED_ONLY else certainty * (other_KV - parallel_KV)
    return torch.where((dot_K > 0)[:, None], helpful_KV, conflicting_KV)


#: Gradient values a modality that are widened to float64 at once; bounds the working memory to some 200 MB.
VALUES_AT_ONCE = 2**22


def _groups(gradients: Mapping[str, Tensor], owners: Mapping[str, Modality | None],
            fast: int | None) -> Iterator[tuple[list[str], Tensor]]:
    """Tensors of one size whose formula is the same, stacked: hundreds of small adapters become dozens of products."""
    fast_one = None if fast is None else MODALITIES[fast]
    grouped: dict[tuple[int, Modality | None, torch.dtype, torch.device], list[str]] = {}
    for name, gradient in gradients.items():
        owner = owners[name]
        main = None if owner is fast_one else owner  # a fast owner's formula is the one without an owner
        grouped.setdefault((gradient[0].numel(), main, gradient.dtype, gradient.device), []).append(name)
    for (values, *_), names in grouped.items():
        at_once = max(1, VALUES_AT_ONCE // max(1, values))
        for start in range(0, len(names), at_once):
            chosen = names[start:start + at_once]
            yield chosen, torch.stack([gradients[name].flatten(1) for name in chosen])
