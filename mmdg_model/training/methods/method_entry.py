"""`MethodEntry`: one row of the registry. Method files make their rows of it, so it lives below them."""

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
        own_backbone: a convolutional network of its own, which takes nothing from a pretrained ViT: all of it trains.
        batch_coupled: a term of the loss compares samples with each other, which it can only do within one part of one
            process's batch. Then parts and processes are joined as the mean of *their* losses, weighted by their
            numbers of samples: how a batch is split is part of the method. False: the update is that of one batch,
            however it was split.
        needs_clip: starts from CLIP's two towers and nothing else: without such a backbone it is refused, so that no
            figure of random weights stands beside published ones.
        still: settings under which training draws nothing beside dropout, so that updates can be compared.
        cross_entropy_alone: settings that leave the cross entropy on this row's network and none of its special terms;
            empty where nothing does.
    """

    name: str
    title: str
    summary: str
    source: str
    settings: type[Any]
    build: Callable[[MethodContext, Any], Method]
    fixed: Mapping[str, Any]
    own_backbone: bool = False
    batch_coupled: bool = False
    needs_clip: bool = False
    still: Mapping[str, Any] = field(default_factory=dict)
    cross_entropy_alone: Mapping[str, Any] = field(default_factory=dict)
