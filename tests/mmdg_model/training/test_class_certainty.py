"""Reading certainty beside the network: the same numbers where it has its own, real ones where it has none."""

from dataclasses import replace

import pytest
import torch

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.training.class_certainty import ClassCertainty
from mmdg_model.training.step_gradients import StepGradients, batch_gradients
from mmdg_model.uncertainty import build_uncertainty
from tests.mmdg_model.training.builders import SMALL, fresh_prototypes, labelled_batch, objective, training_network

ABSENT = [(3, 2), (6, 2), (1, 1)]
WITHOUT = replace(SMALL, uncertainty_estimator=UncertaintyEstimatorKind.NONE)


@pytest.mark.parametrize("estimator", [UncertaintyEstimatorKind.ANALYTIC, UncertaintyEstimatorKind.FINITE_SAMPLES])
def test_equals_the_networks_own_certainty(estimator):
    config = replace(SMALL, uncertainty_estimator=estimator)
    network, _ = training_network(config)
    batch = labelled_batch(8, absent=ABSENT)
    with ClassCertainty(network, build_uncertainty(config)) as certainty:
        output = network(batch.planes, batch.present)
        read = certainty.read_into(output, batch.present)
    torch.testing.assert_close(read.class_certainty, output.class_certainty)
    assert read.logits is output.logits


def test_adapters_without_uncertainty_still_give_regrad_its_factors():
    network, trainable = training_network(WITHOUT)
    batch, prototypes = labelled_batch(8, absent=ABSENT), fresh_prototypes(network, WITHOUT)
    plain = network(batch.planes, batch.present)
    assert plain.class_certainty[batch.present].eq(1).all()
    with ClassCertainty(network, build_uncertainty(SMALL)) as certainty:
        output = certainty.read_into(network(batch.planes, batch.present), batch.present)
    assert torch.equal(output.logits, plain.logits)
    assert (output.class_certainty[batch.present] < 1).all()
    assert (output.class_certainty[batch.present] > 0).all()
    assert not output.class_certainty[~batch.present].any()
    assert not output.class_certainty.requires_grad
    step = StepGradients.empty(trainable, objective())
    step.add(batch_gradients(output, label_B=batch.label, domain_B=batch.domain, present_BM=batch.present,
                             prototypes=prototypes, trainable=trainable, config=objective()))
    assert all(value < 1 for value in step.update(objective())[1].regrad.certainty)


def test_the_hook_is_gone_after_the_block_and_a_reading_is_used_once():
    network, _ = training_network(WITHOUT)
    batch = labelled_batch(4)
    certainty = ClassCertainty(network, build_uncertainty(SMALL))
    with certainty:
        output = network(batch.planes, batch.present)
        certainty.read_into(output, batch.present)
    network(batch.planes, batch.present)
    with pytest.raises(RuntimeError, match="no forward pass"):
        certainty.read_into(output, batch.present)
