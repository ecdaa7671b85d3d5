"""Gradients of the training objective by modality: vector-Jacobian products through the class tokens of one graph.

Everything below the head acts on the cross entropy through the class tokens c_m alone. Hence for each tensor θ there

    dCE/dθ = Σ_m (dCE/dc_m) (dc_m/dθ)      exactly,

and the m-th term, the cotangent dCE/dc_m sent back with those of the other modalities set to 0, is that modality's
gradient g_m. A domain loss L_m is a function of c_m, so its gradient is one modality's as it stands.

Legend: b batch, m modalities (order of `network.MODALITIES`), d width.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradTarget, SharedTensors

_ADAPTER = re.compile(rf"\.adapters\.({'|'.join(MODALITIES)})_from_({'|'.join(MODALITIES)})\.")
_EMBEDDING = re.compile(r"^embeddings\.(\d+)\.")


def parameter_owner(name: str) -> Modality | None:
    """Modality that a parameter of `network.MMDG` belongs to; None for the shared ViT, the final norm and the head.

    An adapter belongs to the modality that it feeds, a token embedding to the one it embeds.
    """
    if found := _ADAPTER.search(name):
        return Modality(found.group(1))
    if found := _EMBEDDING.search(name):
        return MODALITIES[int(found.group(1))]
    return None


def is_head(name: str) -> bool:
    """Whether a parameter of `network.MMDG` acts on the logits other than through the class tokens."""
    return name.startswith("head.")


def modulated_names(names: Iterable[str], config: ReGradConfig) -> tuple[str, ...]:
    """Those of the trainable parameters of `network.MMDG` that ReGrad modulates: all owned ones; shared ones on demand.

    The head sees all modalities at once and always keeps its plain gradient.
    """
    if config.cases is ReGradCases.OFF:
        return ()
    shared_too = config.shared is SharedTensors.SYMMETRIC
    return tuple(name for name in names if not is_head(name) and (shared_too or parameter_owner(name) is not None))


@dataclass(frozen=True, eq=False)
class ModalityGradients:
    """Gradients of one graph. A tensor that nothing reaches is in neither mapping.

    Attributes:
        by_modality: `[m, *shape]` of each tensor to modulate: the target loss's gradient, modality by modality; zeros
            where a modality does not reach it.
        plain: `[*shape]`: the rest of the gradient. Plain plus the sum over modalities is the gradient of the
            whole objective.
    """

    by_modality: dict[str, Tensor]
    plain: dict[str, Tensor]


def modality_gradients(*, cross_entropy: Tensor, domain_loss_M: Tensor, class_tokens_BMD: Tensor,
                       parameters: Mapping[str, nn.Parameter], head: Collection[str], modulated: Collection[str],
                       target: ReGradTarget, loss_scale: float | Tensor = 1.0) -> ModalityGradients:
    """Gradients of cross_entropy + Σ_m domain_loss_M, split as ReGrad needs them. Frees the graph.

    Three backward passes for the target's modalities and, unless the target is `both`, one more; a single pass of the
    whole objective when nothing is modulated: the baseline, bit for bit. The three reach the modulated tensors only,
    the last one is of the whole objective, so that weights shared by all modalities are differentiated once. What it
    says of a modulated tensor, less the three, is the other loss's gradient: exact but for rounding.

    Args:
        cross_entropy: scalar; may depend on the class tokens and on the head only.
        domain_loss_M: `[m]`, already weighted by λ; the m-th may depend on anything of modality m but the head.
        class_tokens_BMD: the graph's own `[b, m, d]` that both losses were computed from.
        parameters: trainable ones, by name.
        head: names of those that reach the cross entropy other than through the class tokens.
        modulated: names of those whose gradients are wanted by modality; none of the head's.
        target: the loss whose gradients are wanted by modality.
        loss_scale: factor on both losses, of a gradient scaler; unscaling may come before or after modulation.

    Raises:
        ValueError: a name in `modulated` that is no parameter or belongs to the head.
    """
    if stray := sorted(set(modulated) - (set(parameters) - set(head))):
        raise ValueError(f"{stray[0]!r} cannot be modulated: it is no trainable parameter, or part of the head")
    cross_entropy, domain_loss_M = cross_entropy * loss_scale, domain_loss_M * loss_scale
    if not modulated:
        return ModalityGradients({}, _gradients([cross_entropy, domain_loss_M.sum()], parameters, retain=False))
    body = {name: parameter for name, parameter in parameters.items() if name not in head}
    with_head = {name: parameter for name, parameter in parameters.items() if name in head}
    in_target = {"ce": target is not ReGradTarget.SSP, "ssp": target is not ReGradTarget.CROSS_ENTROPY}
    tokens_cotangent, *head_gradients = torch.autograd.grad(
        cross_entropy, [class_tokens_BMD, *with_head.values()], retain_graph=True, allow_unused=True)
    modalities = range(len(domain_loss_M))
    wanted = {name: body[name] for name in modulated}
    others = {name: parameter for name, parameter in body.items() if name not in wanted}
    # Tensors that are not modulated need one gradient of everything, so they wait for the last pass.
    in_pass = body if target is ReGradTarget.BOTH else wanted
    parts: list[dict[str, Tensor]] = []
    for index in modalities:
        outputs, cotangents = [], []
        if in_target["ce"] and tokens_cotangent is not None:
            outputs.append(class_tokens_BMD)
            cotangents.append(_only(tokens_cotangent, index))
        if in_target["ssp"]:
            outputs.append(domain_loss_M[index])
            cotangents.append(torch.ones_like(domain_loss_M[index]))
        last = target is ReGradTarget.BOTH and index == modalities[-1]
        parts.append(_gradients(outputs, in_pass, cotangents, retain=not last))
    by_modality = _stacked([{name: part[name] for name in wanted if name in part} for part in parts])
    plain: dict[str, Tensor] = {}
    if target is ReGradTarget.BOTH:
        for part in parts:
            for name in others:
                if name in part:
                    plain[name] = plain[name] + part[name] if name in plain else part[name]
    else:
        rest = domain_loss_M.sum() if target is ReGradTarget.CROSS_ENTROPY else cross_entropy
        if not others:
            plain = _gradients([rest], body, retain=False)
        else:
            # The whole objective's, less what is known of it: exact but for rounding.
            plain = _gradients([cross_entropy, domain_loss_M.sum()], body if rest.requires_grad else others,
                               retain=False)
            _subtract_sums(plain, by_modality)
    plain |= {name: gradient for name, gradient in zip(with_head, head_gradients, strict=True) if gradient is not None}
    return ModalityGradients(by_modality, plain)


def _stacked(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """`[m, *shape]` of each tensor that any part has, zeros where one lacks it.

    Tensors of one shape share one stack: a kernel for each of a dozen shapes, not for each of hundreds of tensors.
    """
    shapes: dict[tuple[torch.Size, torch.dtype], list[str]] = {}
    examples = {name: gradient for part in parts for name, gradient in part.items()}
    for name, example in examples.items():
        shapes.setdefault((example.shape, example.dtype), []).append(name)
    stacked: dict[str, Tensor] = {}
    for names in shapes.values():
        nothing = torch.zeros_like(examples[names[0]])
        together = torch.stack([part.get(name, nothing) for name in names for part in parts])
        stacked.update(zip(names, together.reshape(len(names), len(parts), *nothing.shape).unbind(), strict=True))
    return stacked


def _subtract_sums(totals: dict[str, Tensor], by_modality: Mapping[str, Tensor]) -> None:
    """Total less the sum over modalities, of the tensors in both."""
    names = [name for name in by_modality if name in totals]
    if names:
        rest = torch._foreach_sub([totals[name] for name in names], [by_modality[name].sum(dim=0) for name in names])
        totals.update(zip(names, rest, strict=True))


def _gradients(outputs: list[Tensor], parameters: Mapping[str, nn.Parameter], cotangents: list[Tensor] | None = None,
               *, retain: bool) -> dict[str, Tensor]:
    """Gradients of the parameters that the outputs reach; an output without a graph (a weight of 0) adds none."""
    cotangents = [torch.ones_like(output) for output in outputs] if cotangents is None else cotangents
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs or not parameters:
        return {}
    found = torch.autograd.grad([output for output, _ in pairs], list(parameters.values()),
                                [cotangent for _, cotangent in pairs], retain_graph=retain, allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def _only(cotangent_BMD: Tensor, index: int) -> Tensor:
    alone_BMD = torch.zeros_like(cotangent_BMD)
    alone_BMD[:, index] = cotangent_BMD[:, index]
    return alone_BMD
