"""Where a run's weights start: drawn from its seed, a pretrained backbone and the rest drawn, or a whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from mmdg_model.checkpoint import Checkpoint
from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.training.methods.contract import MethodContext, MethodError

Network = TypeVar("Network", bound=nn.Module)


class Shaped(Protocol):
    """A network that says its shape."""

    @property
    def config(self) -> ModelConfig: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


def check_start(context: MethodContext, *, takes_checkpoints: bool = False) -> None:
    """Refuses a context in which training cannot make sense.

    Args:
        context: of the method.
        takes_checkpoints: the method trains a network that checkpoints hold (`place_checkpoint`).

    Raises:
        MethodError: parts are to stay frozen although there is no backbone, the model and its inputs disagree, or
            there is a checkpoint to start from that this method has no use for.
    """
    model = context.model
    if context.start is not None and not takes_checkpoints:
        raise MethodError("this method's network is not the one that checkpoints hold; start it from a backbone, or "
                          "choose a method of MMDG's network")
    if context.start is not None and context.backbone is not None:
        raise MethodError("there is a backbone and a checkpoint to start from; name one of them")
    if context.backbone is None and context.start is None and model.trainable_parts is not TrainableParts.EVERYTHING:
        raise MethodError(f"model.trainable_parts is {str(model.trainable_parts)!r}, but there is no backbone: random "
                          "weights would stay random; name a backbone file (mmdg import-weights makes one), or let "
                          f"everything train: model.changes.trainable_parts = {str(TrainableParts.EVERYTHING)!r}")
    for key in ("image_size", "absence"):
        if getattr(model, key) != getattr(context.inputs, key):
            raise MethodError(f"model.{key} is {getattr(model, key)}, inputs.{key} is {getattr(context.inputs, key)}; "
                              "they must agree")


def place_checkpoint(network: Shaped, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights, all of them, into a network of the same shape.

    Raises:
        MethodError: listing each choice of the model in which the two differ (which parts train may differ).
    """
    own, theirs = network.config.to_dict(), checkpoint.config.to_dict()
    differing = [f"model.{key} is {own.get(key)!r}, the checkpoint's {theirs.get(key)!r}"
                 for key in sorted(own.keys() | theirs.keys())
                 if key != "trainable_parts" and own.get(key) != theirs.get(key)]
    if differing:
        raise MethodError(f"the checkpoint to start from is another network: {'; '.join(differing)}")
    network.load_state_dict({name: weight.to(torch.float32) for name, weight in checkpoint.weights.items()})


def draw_network(context: MethodContext, build: Callable[[], Network]) -> Network:
    """A network with weights drawn from the context's seed, on the host; the global generator is left alone.

    Drawn on the host whatever the device: generators of another device give other numbers. (On `meta` nothing is
    drawn, so that a network of any size can be looked at.)
    """
    meta = context.compute.device.type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        torch.manual_seed(context.seed)
        return build()
