"""`MethodEntry`: one row of `registry.METHODS`, as a method's own file declares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmdg_model.training.methods.contract import Method, MethodContext


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One row.

    Attributes:
        name: as commands and score tables have it, such as `mmdg`.
        title: as a table of a paper has it, such as `ViT + U-Adapter, CE + SSP`.
        summary: one line for `--help`.
        source: paper, section or equation.
        settings: frozen dataclass of what may be set, every field with a default.
        build: from the context and those settings.
        fixed: settings that make this row this row; naming another value is refused.
        batch_coupled: a term of the loss compares samples with each other, which it can only do within one part of one
            process's batch. Then parts and processes are joined as the mean of *their* losses, weighted by their
            numbers of samples: how a batch is split is part of the method. False: the update is that of one batch,
            however it was split.
        uses_backbone: starts from the context's pretrained ViT and trains `ModelConfig.trainable_parts` of it. False:
            the network is of another kind, starts from random weights and trains as a whole, whatever is given.
        still: settings under which training draws nothing beside dropout, so that updates can be compared.
        cross_entropy_alone: settings that leave the cross entropy on this row's network and none of its special terms;
            empty where there is none.
    """

    name: str
    title: str
    summary: str
    source: str
    settings: type[Any]
    build: Callable[[MethodContext, Any], Method]
    fixed: Mapping[str, Any]
    batch_coupled: bool = False
    uses_backbone: bool = True
    still: Mapping[str, Any] = field(default_factory=dict)
    cross_entropy_alone: Mapping[str, Any] = field(default_factory=dict)
