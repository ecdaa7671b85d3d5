"""The baseline of benchmarks/training.py does the same work as ours: one update from the same weights and batch."""

from dataclasses import replace

import pytest
import torch

from benchmarks.naive_reference import NaiveMmdg
from benchmarks.published_training_step import PublishedStep, leaves
from mmdg_model.config import TrainableParts
from mmdg_model.training.regrad import ReGradTarget
from mmdg_model.uncertainty import BatchAggregation
from tests.mmdg_model.training.builders import (
    SMALL,
    fresh_prototypes,
    labelled_batch,
    objective,
    step_of,
    training_network,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def published_step(network, trainable, prototypes, target, samples=None):
    config = network.config
    naive = NaiveMmdg(leaves(network.state_dict(), trainable), heads=config.heads, depth=config.depth,
                      adapter_heads=config.adapter_heads, theta=config.cdc_theta, rate=config.uncertainty_rate,
                      dropout=config.uncertainty_dropout, eps=config.layer_norm_eps, samples=samples)
    return PublishedStep(naive, prototypes.values.double(), ssp_weight=0.3, target=target)


@pytest.mark.parametrize("target", ["ssp", "ce"])
@pytest.mark.parametrize("parts", [TrainableParts.RELEASE, TrainableParts.EVERYTHING])
def test_both_forms_give_the_same_update(parts, target):
    """Certainty in its limit, no dropout, adapters that speak; no dot product is near 0, where f would jump."""
    config = replace(SMALL, trainable_parts=parts, depth=3)
    network, trainable = training_network(config)
    batch, prototypes = labelled_batch(8, config), fresh_prototypes(network, config)
    choices = objective(target=ReGradTarget(target), aggregation=BatchAggregation.MEAN_OF_EXP)
    ours, record = step_of(network, trainable, [batch], prototypes, choices).update(choices)
    theirs = published_step(network, trainable, prototypes, target).gradients(batch.planes, batch.label, batch.domain)
    assert set(ours) == set(theirs) == set(trainable)
    assert record.regrad.relative_change > 0.01  # modulation acted
    for name, update in ours.items():
        scale = update.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(theirs[name], update, rtol=1e-8, atol=1e-9 * scale, msg=name)


def test_the_baseline_samples_its_certainty():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    torch.manual_seed(0)
    sampled = published_step(network, trainable, prototypes, "ssp", samples=20)
    first, second = (sampled.gradients(batch.planes, batch.label, batch.domain)["head.weight"] for _ in range(2))
    assert not torch.equal(first, second)
