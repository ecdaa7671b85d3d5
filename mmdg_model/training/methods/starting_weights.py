"""Where a run's weights start: drawn from its seed, or a pretrained backbone and the rest drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from mmdg_model.config import TrainableParts
from mmdg_model.training.methods.contract import MethodContext, MethodError

Network = TypeVar("Network", bound=nn.Module)


def check_start(context: MethodContext) -> None:
    """Refuses a context in which training cannot make sense.

    Raises:
        MethodError: parts are to stay frozen although there is no backbone, or the model and its inputs disagree.
    """
    model = context.model
    if context.backbone is None and model.trainable_parts is not TrainableParts.EVERYTHING:
        raise MethodError(f"model.trainable_parts is {str(model.trainable_parts)!r}, but there is no backbone: random "
                          "weights would stay random; name a backbone file (mmdg import-weights makes one), or let "
                          f"everything train: model.changes.trainable_parts = {str(TrainableParts.EVERYTHING)!r}")
    for key in ("image_size", "absence"):
        if getattr(model, key) != getattr(context.inputs, key):
            raise MethodError(f"model.{key} is {getattr(model, key)}, inputs.{key} is {getattr(context.inputs, key)}; "
                              "they must agree")


def draw_network(context: MethodContext, build: Callable[[], Network]) -> Network:
    """A network with weights drawn from the context's seed, on the host; the global generator is left alone.

    Drawn on the host whatever the device: generators of another device give other numbers. (On `meta` nothing is
    drawn, so that a network of any size can be looked at.)
    """
    meta = context.compute.device.type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        torch.manual_seed(context.seed)
        return build()
