"""PMR's terms by hand, their gradients, and a whole update against autograd."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.training.methods.balanced_update import confidence_ratios
from mmdg_model.training.methods.pmr import prototype_log_probability, rebalancing_terms
from tests.mmdg_model.training.methods.builders import DROPPED, double, method, precise, samples

LN2 = math.log(2.0)


def hand_case():
    """Two samples (live, attack), two modalities, width 1; prototypes at 0 (live) and 1 + ln 3 or ln 2 (attack)."""
    tokens = torch.tensor([[[0.0], [0.0]], [[math.log(2.0)], [7.0]]], dtype=torch.float64)
    present = torch.tensor([[True, True], [True, False]])
    prototypes = torch.tensor([[[0.0], [LN2]], [[0.0], [math.log(3.0)]]], dtype=torch.float64)
    return tokens, present, prototypes, torch.ones(2, 2, dtype=torch.bool)


def test_probabilities_by_hand():
    found = prototype_log_probability(*hand_case()).exp()
    torch.testing.assert_close(found[0, 0], torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))  # softmax(0, -ln 2)
    torch.testing.assert_close(found[0, 1], torch.tensor([3 / 4, 1 / 4], dtype=torch.float64))
    torch.testing.assert_close(found[1, 0], torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))


def test_terms_by_hand():
    log_probability, row = prototype_log_probability(*hand_case()), torch.tensor([0, 1])
    ratio = torch.tensor([0.8, 1.5], dtype=torch.float64)
    slow, fast = rebalancing_terms(log_probability, row, hand_case()[1], ratio)
    # The first is slow by 1 / 0.8 - 1 = 0.25 and has -ln 2/3 twice; the second fast by 0.5, in one sample of two.
    assert slow.item() == pytest.approx(0.25 * 2 * -math.log(2 / 3) / 2)
    assert fast.item() == pytest.approx(-0.5 * (-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))) / 2)
    slow, _ = rebalancing_terms(log_probability, row, hand_case()[1], torch.tensor([0.1, 1.0], dtype=torch.float64))
    assert slow.item() == pytest.approx(-math.log(2 / 3))  # clipped at 1


def test_gradients_of_both_terms():
    tokens, present, prototypes, known = hand_case()
    tokens = (tokens + 0.3).requires_grad_()  # off the prototypes, where distance has no slope
    ratio = torch.tensor([0.8, 1.5], dtype=torch.float64)

    def terms(given):
        return rebalancing_terms(prototype_log_probability(given, present, prototypes, known), torch.tensor([0, 1]),
                                 present, ratio)

    assert torch.autograd.gradcheck(terms, (tokens,))
    (gradient,) = torch.autograd.grad(sum(terms(tokens)), tokens)
    assert gradient[1, 1] == 0.0  # absent


def test_an_unknown_prototype_of_the_other_class_leaves_numbers():
    tokens, present, prototypes, known = hand_case()
    known[0, 1] = False
    tokens = (tokens[:1] + 0.3).requires_grad_()
    found = prototype_log_probability(tokens, present[:1], prototypes, known)
    assert found[0, 0].tolist() == [0.0, -math.inf]
    slow, fast = rebalancing_terms(found, torch.tensor([0]), present[:1], torch.tensor([0.5, 2.0]))
    (gradient,) = torch.autograd.grad(slow + fast, tokens)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["pmr_vit", "pmr_u_adapter"])
def test_an_update_is_the_gradient_of_the_written_loss(name):
    found, other = (precise(name, settings={"entropy_weight": 0.2}) for _ in range(2))
    batch = double(samples(dropped=DROPPED))
    for each in (found, other):
        each.start_epoch(0, lambda: [double(samples(1))])
    found.update([batch])
    other.network.train()
    output = other.network(batch.planes, batch.present)
    prototypes = other.current_prototypes
    log_probability = prototype_log_probability(output.class_tokens, batch.present, prototypes.values, prototypes.known)
    row = 1 - batch.label
    own = log_probability.detach().exp()[torch.arange(8)[:, None], torch.arange(3), row[:, None]]
    ratio = confidence_ratios((own * batch.present).sum(dim=0), batch.present.double().sum(dim=0))
    assert ratio.max() > 1.0 > ratio.min()
    slow, fast = rebalancing_terms(log_probability, row, batch.present, ratio)
    (F.cross_entropy(output.logits, batch.label) + slow + 0.2 * fast).backward()
    for key, parameter in found.network.named_parameters():
        expected = dict(other.network.named_parameters())[key].grad
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-9)


def test_terms_end_with_their_epochs():
    found = method("pmr_vit", settings={"prototype_epochs": 2, "entropy_epochs": 1})
    logs = []
    for epoch in range(3):
        found.start_epoch(epoch, lambda: [samples(1)])
        scalars = found.update([samples()])
        logs.append((scalars["loss/prototype"] != 0.0, scalars["loss/entropy"] != 0.0))
    assert logs == [(True, True), (True, False), (False, False)]
