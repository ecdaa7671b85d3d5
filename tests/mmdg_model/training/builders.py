"""A network small enough to differentiate many times, in float64 so that comparisons are sharp, and its labels."""

import dataclasses

import torch

from mmdg_model.config import ModelConfig
from mmdg_model.trainable import freeze_the_rest
from mmdg_model.training.prototypes import PrototypeBatch, PrototypeConfig, sum_class_tokens
from mmdg_model.training.regrad import ReGradConfig
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.training.step_gradients import ObjectiveConfig, StepGradients, batch_gradients
from tests.mmdg_model.builders import lively_network, random_planes

SMALL = ModelConfig(width=24, heads=3, depth=2, image_size=32, adapter_dropout=0.0)
CLASSES = DomainClasses(("C", "P", "S"))


def training_network(config=SMALL, seed=0):
    """A lively network in training mode, and its trainable parameters."""
    network = lively_network(config, seed).double().train()
    return network, freeze_the_rest(network)


def objective(*, ssp_weight=0.3, **regrad):
    return ObjectiveConfig(ssp_weight=ssp_weight, regrad=ReGradConfig(**regrad))


@dataclasses.dataclass
class LabelledBatch:
    planes: torch.Tensor
    present: torch.Tensor
    label: torch.Tensor
    domain: torch.Tensor

    def rows(self, chosen):
        return LabelledBatch(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def labelled_batch(batch=8, config=SMALL, seed=0, absent=()):
    """Both labels and all four rows; `absent` names (sample, modality) pairs that are missing."""
    domain = torch.arange(batch) % len(CLASSES.rows)
    present = torch.ones(batch, 3, dtype=torch.bool)
    for sample, modality in absent:
        present[sample, modality] = False
    return LabelledBatch(random_planes(batch, config, seed).double(), present, (domain == 0).long(), domain)


def fresh_prototypes(network, config=SMALL, seed=1):
    """From another batch than the one trained on, so that no distance is special."""
    other = labelled_batch(8, config, seed)
    batches = [PrototypeBatch(other.planes, other.present, other.domain)]
    sums = sum_class_tokens(network, batches, CLASSES, PrototypeConfig(), seed=0, epoch=0)
    return sums.prototypes(PrototypeConfig())


def gradients_of(network, trainable, batch, prototypes, config, **changes):
    return batch_gradients(network(batch.planes, batch.present), label_B=batch.label, domain_B=batch.domain,
                           present_BM=batch.present, prototypes=prototypes, trainable=trainable, config=config,
                           **changes)


def step_of(network, trainable, batches, prototypes, config, **changes):
    """One step accumulated over `batches`."""
    step = StepGradients.empty(trainable, config)
    for batch in batches:
        step.add(gradients_of(network, trainable, batch, prototypes, config, **changes))
    return step
