"""The SSP loss: hand cases, what stands in the denominator, absent modalities, safety at distance 0."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.training.ssp_loss import DomainClasses, ssp_loss


def random_case(batch=6, classes=4, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"class_tokens_BMD": torch.randn(batch, 3, width, generator=generator, dtype=torch.float64),
            "domain_B": torch.arange(batch) % classes,
            "present_BM": torch.ones(batch, 3, dtype=torch.bool),
            "prototypes_MKD": torch.randn(3, classes, width, generator=generator, dtype=torch.float64),
            "known_MK": torch.ones(3, classes, dtype=torch.bool)}


def one_token(token, prototypes, domain=0, known=None):
    """One sample, one modality."""
    return ssp_loss(torch.tensor([[token]]), torch.tensor([domain]), torch.ones(1, 1, dtype=torch.bool),
                    prototypes_MKD=torch.tensor([prototypes]),
                    known_MK=torch.tensor([known or [True] * len(prototypes)]))


def test_by_hand():
    """Distances 5 (not squared: 25) to the own prototype and 0 to the other: 5 + log(e^-5 + 1)."""
    loss = one_token([3.0, 4.0], [[0.0, 0.0], [3.0, 4.0]])
    assert float(loss.loss) == pytest.approx(5 + math.log(math.exp(-5) + 1))
    share = math.exp(-5) / (1 + math.exp(-5))
    assert float(loss.entropy) == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share), rel=1e-4)


def test_is_cross_entropy_over_distances():
    case = random_case()
    distances = torch.cdist(case["class_tokens_BMD"].transpose(0, 1), case["prototypes_MKD"])  # [m, b, k]
    expected = torch.stack([F.cross_entropy(-rows, case["domain_B"], reduction="none") for rows in distances], dim=1)
    torch.testing.assert_close(ssp_loss(**case).loss, expected)


def test_gradients_are_those_of_finite_differences():
    case = random_case(batch=2, classes=3, width=2)
    tokens = case.pop("class_tokens_BMD").requires_grad_()
    assert torch.autograd.gradcheck(lambda tokens: ssp_loss(tokens, **case).loss, tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_token_on_its_prototype_has_a_finite_gradient(dtype):
    token = torch.tensor([[[1.0, 2.0]]], dtype=dtype, requires_grad=True)
    prototypes = torch.tensor([[[1.0, 2.0], [1.0, 5.0]]])
    loss = ssp_loss(token, torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool), prototypes_MKD=prototypes,
                    known_MK=torch.ones(1, 2, dtype=torch.bool)).loss
    loss.sum().backward()
    # d/dc of log(1 + exp(-|c - p_1|)): the own distance adds nothing.
    share = math.exp(-3) / (1 + math.exp(-3))
    torch.testing.assert_close(token.grad, torch.tensor([[[0.0, share]]], dtype=dtype), rtol=1e-3, atol=0)


def test_far_tokens_do_not_overflow():
    loss = one_token([1e4, 0.0], [[0.0, 0.0], [1e4, 1.0]])
    assert float(loss.loss) == pytest.approx(1e4 - 1)


def test_prototypes_are_constants():
    case = random_case()
    case["prototypes_MKD"].requires_grad_()
    case["class_tokens_BMD"].requires_grad_()
    ssp_loss(**case).loss.sum().backward()
    assert case["prototypes_MKD"].grad is None
    assert (case["class_tokens_BMD"].grad != 0).all()


def test_permuting_domain_rows_changes_nothing():
    case = random_case()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = case | {"prototypes_MKD": case["prototypes_MKD"][:, order],
                       "domain_B": order.argsort()[case["domain_B"]]}
    torch.testing.assert_close(ssp_loss(**shuffled).loss, ssp_loss(**case).loss)


def test_an_unknown_row_is_in_no_denominator_and_a_zero_row_is():
    """Paper: N_s + 1 classes. Release: the held-out data set's zero row counts too, and raises the loss."""
    paper = one_token([3.0, 4.0], [[0.0, 1.0], [6.0, 0.0]])
    held_out = [[0.0, 1.0], [6.0, 0.0], [0.0, 0.0]]
    assert torch.equal(one_token([3.0, 4.0], held_out, known=[True, True, False]).loss, paper.loss)
    released = one_token([3.0, 4.0], held_out, known=[True, True, True]).loss
    own, other, zero = math.sqrt(18), 5.0, 5.0
    assert float(released) == pytest.approx(own + math.log(math.exp(-own) + math.exp(-other) + math.exp(-zero)))
    assert released > paper.loss


@pytest.mark.parametrize("content", [0.0, math.nan, math.inf])
def test_an_absent_modality_adds_nothing_whatever_it_holds(content):
    case = random_case()
    case["present_BM"][1, 2] = case["present_BM"][4, 0] = False
    clean = ssp_loss(**case)
    tokens = torch.where(case["present_BM"][:, :, None], case["class_tokens_BMD"], content).requires_grad_()
    loss = ssp_loss(**(case | {"class_tokens_BMD": tokens}))
    assert torch.equal(loss.loss, clean.loss)
    assert loss.loss[1, 2] == loss.loss[4, 0] == loss.entropy[1, 2] == 0
    loss.loss.sum().backward()
    assert tokens.grad.isfinite().all()
    assert not tokens.grad[~case["present_BM"]].any()


def test_a_modality_no_sample_has_may_have_no_prototypes():
    case = random_case()
    case["present_BM"][:, 1] = False
    case["known_MK"][1] = False
    case["class_tokens_BMD"].requires_grad_()
    loss = ssp_loss(**case)
    loss.loss.sum().backward()
    assert not loss.loss[:, 1].any()
    assert case["class_tokens_BMD"].grad.isfinite().all()


def test_the_batch_mean_counts_all_samples():
    case = random_case()
    case["present_BM"][0, 1] = False
    loss = ssp_loss(**case)
    torch.testing.assert_close(loss.mean_over_batch(), loss.loss.mean(dim=0))
    halves = [ssp_loss(**(case | {key: case[key][rows] for key in ("class_tokens_BMD", "domain_B", "present_BM")}))
              for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close((2 * halves[0].mean_over_batch() + 4 * halves[1].mean_over_batch()) / 6,
                               loss.mean_over_batch())


BAD = [
    ({"domain_B": torch.tensor([0, 1, 2, 3, 4, 0])}, "expected 0 to 3"),
    ({"domain_B": torch.tensor([0, 1, 2, 3, -1, 0])}, "expected 0 to 3"),
    ({"domain_B": torch.zeros(5, dtype=torch.int64)}, "domain is"),
    ({"present_BM": torch.ones(6, 3)}, "presence is torch.float32"),
    ({"prototypes_MKD": torch.zeros(3, 4, 6)}, "prototypes is"),
    ({"known_MK": torch.tensor([[True] * 4, [True, True, False, True], [True] * 4])}, "row 2, whose depth prototype"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        ssp_loss(**(random_case() | changes))


def test_live_faces_of_all_sources_share_a_row():
    classes = DomainClasses(("C", "P", "S"))
    assert classes.rows == ("live", "C", "P", "S")  # N_s + 1
    assert {classes.row(source, is_live=True) for source in "CPS"} == {0}
    assert [classes.row(source, is_live=False) for source in "CPS"] == [1, 2, 3]


def test_the_release_keeps_a_row_for_the_held_out_set():
    assert DomainClasses(("C", "P", "S"), held_out=("W",)).rows == ("live", "C", "P", "S", "W")


@pytest.mark.parametrize("names", [(), ("C", "C"), ("C", "live")])
def test_ambiguous_classes_are_refused(names):
    with pytest.raises(ValueError, match=r"at least one|occurs twice"):
        DomainClasses(names)


def test_a_sample_of_the_target_is_refused():
    with pytest.raises(ValueError, match="'W', expected one of C, P, S"):
        DomainClasses(("C", "P", "S"), held_out=("W",)).row("W", is_live=False)
