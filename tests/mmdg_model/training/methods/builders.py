"""A network, a backbone and samples small enough to train every method in a moment."""

import dataclasses
import functools

import torch

from mmdg_model.config import Activation, EmbeddingNorm, ModelConfig, TrainableParts
from mmdg_model.inputs import InputSpecification
from mmdg_model.mmdg_plus_plus.clip_towers import build_text_tower
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig
from mmdg_model.training.compute import SingleProcess, require_finite_gradients
from mmdg_model.training.methods.contract import MethodContext, OptimiserConfig, TrainingBatch
from mmdg_model.training.methods.registry import build, entry
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.weights.backbone import Backbone, BackboneConfig
from mmdg_model.weights.clip_text import text_heads

TOY = ModelConfig(width=24, heads=3, depth=2, image_size=32, trainable_parts=TrainableParts.EVERYTHING)
#: For comparisons up to rounding: nothing drawn, and an optimiser that does not blow small differences up.
STILL = dataclasses.replace(TOY, adapter_dropout=0.0)
SGD = OptimiserConfig(name="sgd", learning_rate=0.05, weight_decay=1e-3)
CLASSES = DomainClasses(("C", "P", "S"))
#: (sample, modality) of `samples` that modality dropout has taken away.
DROPPED = ((3, 2), (6, 2), (1, 1), (4, 1), (4, 2))


class ScaledProcess(SingleProcess):
    """A gradient scaler with a fixed factor, as float16 needs one."""

    def __init__(self, scale):
        super().__init__()
        self.loss_scale = scale

    def apply(self, optimizer):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]
                      if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad = parameter.grad / self.loss_scale
        if not all(bool(parameter.grad.isfinite().all()) for parameter in parameters):
            return False
        require_finite_gradients(optimizer)
        optimizer.step()
        return True


def context(model=TOY, *, classes=CLASSES, optimiser=None, backbone=None, compute=None, seed=0):
    return MethodContext(
        model=model, inputs=InputSpecification(image_size=model.image_size, absence=model.absence), classes=classes,
        optimiser=optimiser or OptimiserConfig(learning_rate=3e-3), backbone=backbone,
        compute=compute or SingleProcess(), seed=seed)


def method(name, model=TOY, *, settings=None, **changes):
    if entry(name).needs_clip and changes.get("backbone") is None:
        changes["backbone"] = toy_clip(model, meta=model.width > TOY.width)
    return build(name, settings or {}, context(model, **changes))


def silence_dropout(found):
    for module in found.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def precise(name, **changes):
    """In float64, without draws, and lively: fresh adapters are silent, and modalities would not meet."""
    found = method(name, **({"model": STILL, "optimiser": SGD, "settings": dict(entry(name).still)} | changes))
    generator = torch.Generator().manual_seed(11)
    silence_dropout(found)
    with torch.no_grad():
        for key, parameter in found.network.named_parameters():
            if key.endswith("up.weight"):
                parameter.normal_(std=0.3, generator=generator)
            elif key.endswith(("convolution.weight", "head.weight")):
                parameter.normal_(std=0.5, generator=generator)
    found.network.double()
    return found


def samples(seed=0, *, dropped=(), flipped=False, model=TOY):
    """Eight: three live, five attacks of three sources; noise in which nothing is to be found but by heart."""
    generator = torch.Generator().manual_seed(seed)
    planes = torch.randn(8, 3, 3, model.image_size, model.image_size, generator=generator)
    present = torch.ones(8, 3, dtype=torch.bool)
    for sample, modality in dropped:
        present[sample, modality] = False
    label = torch.tensor([1, 0, 1, 0, 1, 0, 0, 0])
    label = 1 - label if flipped else label
    source = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    return TrainingBatch(planes, present, label, torch.where(label == 1, 0, 1 + source), source)


def rows(batch, chosen):
    return TrainingBatch(*(tensor[chosen] for tensor in batch))


def double(batch):
    return batch._replace(planes=batch.planes.double())


def weights(found):
    return {name: value.detach().clone() for name, value in found.network.state_dict().items()}


def toy_backbone(model=TOY, seed=7):
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(BackboneConfig)
              if hasattr(model, field.name)}
    config = BackboneConfig(**fields)
    generator = torch.Generator().manual_seed(seed)
    return Backbone(config=config, weights={name: 0.1 * torch.randn(shape, generator=generator)
                                            for name, shape in config.shapes().items()},
                    layout="test", source_sha256="0" * 64, pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3,
                    created_by="a test")


@functools.cache
def toy_clip(model=TOY, *, meta=False, seed=7):
    """A CLIP of the model's shape that nobody trained, for tests; with `meta` without a byte of weights."""
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(BackboneConfig)
              if hasattr(model, field.name)}
    joint = 2 * model.width // 3
    config = BackboneConfig(**fields | {
        "activation": Activation.QUICK_GELU, "embedding_norm": EmbeddingNorm.LAYER_NORM, "layer_norm_eps": 1e-5,
        "projection_width": joint})
    with torch.device("meta" if meta else "cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = build_text_tower(DomainPromptConfig(
            width=joint, heads=text_heads(joint), depth=model.depth, mlp_ratio=model.mlp_ratio, feature_width=joint))
        weights = {name: torch.zeros(shape) if name == "embedding.patches.bias" else 0.2 * torch.randn(shape)
                   + float("norm" in name and name.endswith("weight")) for name, shape in config.shapes().items()}
    return Backbone(config=config, weights=weights, text=tower.state_dict(), layout="test", source_sha256="0" * 64,
                    pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3, created_by="a test")


def start_for(name, model=TOY):
    """The backbone that a row starts from."""
    return toy_clip(model) if entry(name).needs_clip else toy_backbone(model)


def meta_backbone():
    """Of the paper's size, without a byte of weights."""
    config = BackboneConfig()
    return Backbone(config=config, weights={name: torch.empty(shape, device="meta")
                                            for name, shape in config.shapes().items()},
                    layout="test", source_sha256="0" * 64, pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3,
                    created_by="a test")
