"""ReGrad: Eq. 5 by hand, a naive second implementation, its properties, the ablations, what is logged."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from mmdg_model.training.regrad import (
    ReGradCases,
    ReGradConfig,
    ReGradError,
    ReGradTarget,
    fast_modality,
    modulate,
    modulate_tensors,
)
from mmdg_model.uncertainty import BatchAggregation

OWNERS_AND_FAST = list(product([0, 1, 2, None], [0, 1, 2]))
CERTAINTY = (0.9, 0.5, 0.2)


def update(gradients, owner, fast, certainty=CERTAINTY, cases=ReGradCases.ALL):
    """The update of one tensor, from its gradients `[m, v]`."""
    stacked = torch.as_tensor(gradients)[None]
    return modulate_tensors(stacked, owner=owner, fast=fast, certainty=certainty, cases=cases).update[0]


def random_gradients(seed=0, modalities=3, values=7):
    return torch.randn(modalities, values, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_update(gradients, owner, fast, certainty):
    """Owner slow and owner fast as two formulas, in plain Python."""
    def dot(a, b):
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    def f(a, b):
        square = dot(a, a)
        parallel = [dot(a, b) / square * x if square else 0.0 for x in a]
        return parallel if dot(a, b) > 0 else [y - p for y, p in zip(b, parallel, strict=True)]

    def add(a, b, factor=1.0):
        return [x + factor * y for x, y in zip(a, b, strict=True)]

    rows = [row.tolist() for row in gradients]
    main = fast if owner is None else owner
    others = [index for index in range(len(rows)) if index != main]
    if main == fast:
        total = rows[others[0]]
        for index in others[1:]:
            total = add(total, rows[index])
        return add(total, f(total, rows[fast]), certainty[fast])
    result = rows[owner]
    for index in others:
        result = add(result, f(rows[owner], rows[index]), certainty[index])
    return result


# Two modalities, gradients in the plane: the slow one is modality 0 with g = (2, 0), the fast one 1, U_1 = 0.5.
EQ_5_BY_HAND = [
    # fast gradient, update: slow + 0.5 f(slow, fast)
    pytest.param((1.0, 3.0), (2.5, 0.0), id="unconflicted keeps the parallel part (1, 0)"),
    pytest.param((-1.0, 3.0), (2.0, 1.5), id="conflicted keeps the orthogonal part (0, 3)"),
    pytest.param((-4.0, 0.0), (2.0, 0.0), id="opposite leaves nothing of the fast one"),
    pytest.param((0.0, 3.0), (2.0, 1.5), id="orthogonal is kept whole"),
    pytest.param((0.0, 0.0), (2.0, 0.0), id="a fast one that does not reach the tensor adds nothing"),
]


@pytest.mark.parametrize("owner", [0, 1, None], ids=["owner slow", "owner fast", "no owner"])
@pytest.mark.parametrize(("fast_gradient", "expected"), EQ_5_BY_HAND)
def test_two_modalities_follow_eq_5_whoever_owns_the_tensor(fast_gradient, expected, owner):
    result = update([(2.0, 0.0), fast_gradient], owner, fast=1, certainty=(0.25, 0.5))
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


THREE_BY_HAND = [
    # owner, update. g_R = (1, 0) fast, g_D = (2, 0) and g_I = (-1, 1) slow; U = (0.5, 0.25, 1).
    pytest.param(0, (1 + 0.5 * 0.5, 1 + 0.5 * 0.5), id="owner fast: s = (1, 1), f(s, g_R) = (0.5, 0.5)"),
    pytest.param(1, (2 + 0.5 * 1, 0 + 1 * 1), id="owner D: f(g_D, g_R) = (1, 0), f(g_D, g_I) = (0, 1)"),
    pytest.param(2, (-1 + 0.5 * 0.5 + 0.25 * 1, 1 + 0.5 * 0.5 + 0.25 * 1), id="owner I: (0.5, 0.5) and (1, 1)"),
    pytest.param(None, (1.25, 1.25), id="no owner: as if the fast one owned it"),
]


@pytest.mark.parametrize(("owner", "expected"), THREE_BY_HAND)
def test_three_modalities_by_hand(owner, expected):
    result = update([(1.0, 0.0), (2.0, 0.0), (-1.0, 1.0)], owner, fast=0, certainty=(0.5, 0.25, 1.0))
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
def test_equals_a_naive_implementation(owner, fast):
    for seed in range(20):
        gradients = random_gradients(seed)
        expected = torch.tensor(naive_update(gradients, owner, fast, CERTAINTY), dtype=torch.float64)
        torch.testing.assert_close(update(gradients, owner, fast), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
@pytest.mark.parametrize("scale", [1e-6, 1e-18, 1e12])
def test_the_update_scales_with_the_gradients(owner, fast, scale):
    """Early gradients have squares far below any absolute epsilon; in float32 the squares of 1e-30 would be 0."""
    gradients = random_gradients().float() * 1e-3
    scaled = (gradients.double() * scale).float()
    torch.testing.assert_close(update(scaled, owner, fast), scale * update(gradients, owner, fast), rtol=1e-5, atol=0)
    assert not torch.allclose(update(scaled, owner, fast), scaled.double().sum(dim=0), rtol=1e-2, atol=0)


@given(seed=st.integers(0, 10_000), case=st.sampled_from(OWNERS_AND_FAST))
@settings(max_examples=60, deadline=None)
def test_rotating_the_gradients_rotates_the_update(seed, case):
    gradients = random_gradients(seed, values=5)
    rotation, _ = torch.linalg.qr(random_gradients(seed + 1, modalities=5, values=5))
    torch.testing.assert_close(update(gradients @ rotation, *case), update(gradients, *case) @ rotation)


@given(seed=st.integers(0, 10_000), case=st.sampled_from(OWNERS_AND_FAST))
@settings(max_examples=60, deadline=None)
def test_the_main_gradient_never_loses(seed, case):
    owner, fast = case
    gradients = random_gradients(seed, values=4)
    main = gradients.sum(dim=0) - gradients[fast] if owner in (None, fast) else gradients[owner]
    assert torch.dot(update(gradients, owner, fast), main) >= torch.dot(main, main) * (1 - 1e-12)


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
def test_orthogonal_gradients_with_full_certainty_give_the_plain_sum(owner, fast):
    gradients = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(update(gradients, owner, fast, (1.0, 1.0, 1.0)), gradients.double().sum(dim=0))


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
def test_without_certainty_only_the_main_gradient_is_left(owner, fast):
    gradients = random_gradients()
    main = gradients.sum(dim=0) - gradients[fast] if owner in (None, fast) else gradients[owner]
    torch.testing.assert_close(update(gradients, owner, fast, (0.0, 0.0, 0.0)), main)


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
def test_a_modality_that_does_not_reach_the_tensor_counts_as_zero(owner, fast):
    """Whichever is missing: the update is finite, and the others' as if only they existed."""
    for missing in range(3):
        gradients = random_gradients()
        gradients[missing] = 0.0
        result = update(gradients, owner, fast, (1.0, 1.0, 1.0))
        torch.testing.assert_close(result, torch.tensor(naive_update(gradients, owner, fast, (1.0,) * 3),
                                                        dtype=torch.float64))
        if missing not in (owner, fast) and owner is not None:
            rest = [index for index in range(3) if index != missing]
            alone = update(gradients[rest], rest.index(owner), rest.index(fast), (1.0, 1.0))
            torch.testing.assert_close(result, alone)
    assert torch.equal(update(torch.zeros(3, 4), owner, fast), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(("owner", "fast"), OWNERS_AND_FAST)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cases", [ReGradCases.ALL, ReGradCases.CONFLICTED_ONLY, ReGradCases.UNCONFLICTED_ONLY])
def test_an_overflow_of_any_modality_stays_visible(owner, fast, broken, cases):
    for modality in range(3):
        gradients = random_gradients()
        gradients[modality, 2] = broken
        assert not update(gradients, owner, fast, cases=cases).isfinite().all()


ABLATIONS = [
    # cases, update for g_slow = (2, 0), U = 0.5; helpful (1, 3), then conflicting (-1, 3)
    pytest.param(ReGradCases.ALL, (2.5, 0.0), (2.0, 1.5), id="all"),
    pytest.param(ReGradCases.CONFLICTED_ONLY, (3.0, 3.0), (2.0, 1.5), id="helpful whole"),
    pytest.param(ReGradCases.UNCONFLICTED_ONLY, (2.5, 0.0), (1.0, 3.0), id="conflicting whole"),
]


@pytest.mark.parametrize(("cases", "helpful", "conflicting"), ABLATIONS)
def test_each_ablation_leaves_the_other_case_the_plain_sum(cases, helpful, conflicting):
    results = [update([(2.0, 0.0), fast], 0, 1, (1.0, 0.5), cases) for fast in ((1.0, 3.0), (-1.0, 3.0))]
    torch.testing.assert_close(torch.stack(results), torch.tensor([helpful, conflicting], dtype=torch.float64))


FAST = [
    ((0.3, 0.2, 0.4), (True, True, True), 1),
    ((0.2, 0.2, 0.4), (True, True, True), 0),  # a tie has one fast modality, the first
    ((0.2, 0.2, 0.2), (True, True, True), 0),
    ((0.3, 0.0, 0.2), (True, False, True), 2),  # an absent modality is not fast, whatever its loss says
    ((0.3, math.nan, 0.2), (True, False, True), 2),
    ((0.3, 0.1, 0.2), (False, True, False), None),  # nothing to balance
    ((0.3, 0.1, 0.2), (False, False, False), None),
]


@pytest.mark.parametrize(("losses", "present", "expected"), FAST)
def test_fast_is_the_smallest_ssp_loss_of_those_present(losses, present, expected):
    assert fast_modality(losses, present) == expected


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_broken_loss_chooses_nobody(loss):
    with pytest.raises(ReGradError, match=r"modality 1 is (nan|inf)"):
        fast_modality((0.3, loss, 0.2), (True, True, True))


NAMED = {"a": (3, 4), "b": (3, 2, 2), "c": (3, 4), "d": (3, 1), "e": (3, 4)}
OWNERS = {"a": Modality.RGB, "b": Modality.DEPTH, "c": Modality.INFRARED, "d": Modality.DEPTH, "e": None}


def named_gradients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in NAMED.items()}


def modulated(gradients, **changes):
    return modulate(gradients, OWNERS, **({"ssp_losses": (0.3, 0.1, 0.2), "present": (True, True, True),
                                           "certainty": CERTAINTY} | changes))


def test_many_tensors_at_once_equal_each_alone():
    gradients = named_gradients()
    updates, record = modulated(gradients)
    for name, gradient in gradients.items():
        owner = None if OWNERS[name] is None else MODALITIES.index(OWNERS[name])
        alone = update(gradient.flatten(1), owner, fast=1).reshape(gradient.shape[1:]).float()
        torch.testing.assert_close(updates[name], alone, rtol=0, atol=0)
    assert record.fast is Modality.DEPTH
    assert record.modulated_tensors == len(updates) == len(NAMED)


def test_the_record_counts_conflicts_and_change():
    """Two pairs conflict of three that can: (own, fast) conflicts, (own, other slow) helps; one gradient is zero."""
    gradients = {"a": torch.tensor([[1.0, 0.0], [-1.0, 1.0], [1.0, 0.0]]),
                 "b": torch.tensor([[0.0, 0.0], [1.0, 0.0], [-3.0, 1.0]])}
    owners = {"a": Modality.RGB, "b": Modality.INFRARED}
    updates, record = modulate(gradients, owners, ssp_losses=(0.3, 0.1, 0.2), present=(True,) * 3,
                               certainty=(1.0, 1.0, 1.0))
    # a: (1,0) + (0,1) + (1,0) = (2,1), plain (1,1). b: (-3,1) + ((1,0) + 0.3·(-3,1)) = (-2.9,1.3), plain (-2,1).
    torch.testing.assert_close(updates["a"], torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(updates["b"], torch.tensor([-2.9, 1.3]))
    assert record.conflict_rate == pytest.approx(2 / 3)
    assert record.relative_change == pytest.approx(math.sqrt((1 + 0.81 + 0.09) / (1 + 1 + 4 + 1)))


@pytest.mark.parametrize("changes", [{"cases": ReGradCases.OFF}, {"present": (True, False, False)}],
                         ids=["off", "one modality present"])
def test_nothing_to_balance_is_the_plain_sum(changes):
    gradients = named_gradients()
    updates, record = modulated(gradients, **changes)
    for name, gradient in gradients.items():
        torch.testing.assert_close(updates[name], gradient.sum(dim=0))
    assert (record.fast, record.conflict_rate, record.modulated_tensors) == (None, None, 0)
    assert record.relative_change == 0.0


def test_no_gradient_at_all_is_no_number_in_the_record():
    updates, record = modulated({"a": torch.zeros(3, 4)})
    assert torch.equal(updates["a"], torch.zeros(4))
    assert (record.conflict_rate, record.relative_change) == (None, None)
    assert modulated({})[0] == {}


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_certainty_out_of_range_is_refused(value):
    with pytest.raises(ReGradError, match="expected 0 to 1"):
        modulated(named_gradients(), certainty=(1.0, value, 1.0))


def test_large_tensors_are_taken_in_parts_with_the_same_result(monkeypatch):
    whole, _ = modulated(named_gradients())
    monkeypatch.setattr("mmdg_model.training.regrad.VALUES_AT_ONCE", 1)
    for name, part in modulated(named_gradients())[0].items():
        assert torch.equal(part, whole[name])


def test_the_default_is_the_papers():
    assert ReGradConfig() == ReGradConfig(target=ReGradTarget.CROSS_ENTROPY, cases=ReGradCases.ALL,
                                          aggregation=BatchAggregation.EXP_OF_MEAN)


def test_gradients_keep_their_type():
    updates, _ = modulated({name: gradient.half() for name, gradient in named_gradients().items()})
    assert {value.dtype for value in updates.values()} == {torch.float16}
