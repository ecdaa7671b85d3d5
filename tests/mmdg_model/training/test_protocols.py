"""The protocols' sums, what may touch what, the withheld inputs, and one checkpoint for Protocols 1 and 2."""

from pathlib import Path

import numpy as np
import pytest

from mmdg_model.inputs import DepthEncoding, InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.manifests import read_manifests
from mmdg_model.training.protocols import (
    PROTOCOL_3,
    SUB_PROTOCOLS,
    ProtocolError,
    Scenario,
    sub_protocol,
    withhold,
)
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, Split
from tests.mmdg_model.training.trees import PUBLIC_LISTS, WITHOUT_PUBLIC_LISTS, write_full_lists

#: name: live and spoof that train, lines that train, lines that test
TOTALS = {
    "CPS_W": (2697, 9490, 12187, 1671), "CPW_S": (2169, 5416, 7585, 12564), "CSW_P": (2472, 10320, 12792, 667),
    "PSW_C": (1869, 7213, 9082, 6739), "CW_PS": (1572, 4923, 6495, 13231), "PS_CW": (1497, 5890, 7387, 8410),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    lists = write_full_lists(tmp_path_factory.mktemp("lists"))
    return read_manifests(lists.parent, lists)


def totals(manifests, name):
    trains, tests = sub_protocol(name).training_samples(manifests), sub_protocol(name).test_samples(manifests)
    live = sum(sample.bona_fide for sample in trains)
    return live, len(trains) - live, len(trains), len(tests)


def test_every_training_of_the_benchmark_is_there():
    assert list(SUB_PROTOCOLS) == list(TOTALS)
    assert [each.number for each in SUB_PROTOCOLS.values()] == [1, 1, 1, 1, 3, 3]


@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_lists_of_the_public_form(written, name):
    assert totals(written, name) == TOTALS[name]
    stated = sub_protocol(name)
    assert (stated.training_counts().lines, stated.test_counts().lines) == TOTALS[name][2:]


@pytest.mark.skipif(PUBLIC_LISTS is None, reason=WITHOUT_PUBLIC_LISTS)
def test_totals_of_the_public_lists():
    manifests = read_manifests(Path("nowhere"), Path(PUBLIC_LISTS))
    assert {name: totals(manifests, name) for name in TOTALS} == TOTALS


@pytest.mark.parametrize("each", SUB_PROTOCOLS.values(), ids=lambda each: each.name)
def test_targets_touch_neither_training_nor_choices(written, each):
    assert {*each.sources, *each.targets} == set(PUBLIC_DOMAINS)
    seen = each.training_samples(written) + each.selection_samples(written)
    assert {(sample.domain, sample.split) for sample in seen} == {
        (domain, split) for domain in each.sources for split in (Split.TRAIN, Split.VALIDATION)}
    assert {(sample.domain, sample.split) for sample in each.test_samples(written)} == {
        (domain, Split.TEST) for domain in each.targets}


def test_protocol_3_pools_its_targets_in_one_test(written):
    for each in PROTOCOL_3:
        pool = each.test_samples(written)
        assert len(pool) == sum(len(written[domain, Split.TEST]) for domain in each.targets)


def test_a_list_that_was_not_read(written):
    part = {key: samples for key, samples in written.items() if key[0] is not Domain.PADISI}
    with pytest.raises(ProtocolError, match="list P-train was not read"):
        sub_protocol("CPS_W").training_samples(part)


def test_an_unknown_protocol():
    with pytest.raises(ProtocolError, match="no protocol 'SWC_P'; there are CPS_W, CPW_S"):
        sub_protocol("SWC_P")


@pytest.fixture
def crop():
    size = 16
    plane = np.arange(256, dtype=np.uint8).reshape(size, size)
    mask = np.ones((size, size), dtype=np.bool_)
    return CropPlanes(colour=np.repeat(plane[:, :, None], 3, axis=2), colour_valid=mask, depth=plane.astype(np.uint16),
                      depth_valid=mask, infrared=plane, infrared_valid=mask)


@pytest.mark.parametrize(("scenario", "left"), [
    (Scenario.COMPLETE, [True, True, True]),
    (Scenario.MISSING_DEPTH, [True, False, True]),
    (Scenario.MISSING_INFRARED, [True, True, False]),
    (Scenario.MISSING_DEPTH_AND_INFRARED, [True, False, False]),
])
def test_withheld_inputs_are_absent_and_the_others_untouched(crop, scenario, left):
    specification = InputSpecification(image_size=16, depth_encoding=DepthEncoding.IDENTITY_8BIT)
    whole, (first, second) = prepare([crop], specification), (
        prepare([withhold(crop, scenario)], specification) for _ in range(2))
    assert first.present.tolist() == [left]
    assert np.array_equal(first.planes, second.planes)
    assert np.array_equal(first.planes[:, left], whole.planes[:, left])
    assert withhold(crop, scenario).modalities == tuple(m for m, is_left in zip(Modality, left, strict=True) if is_left)


@pytest.mark.parametrize(("name", "sources", "targets"), [
    ("W_W", "W", "W"), ("CPSW_L", "CPSW", "L"), ("CLPSW_L", "CLPSW", "L")])
def test_trainings_that_are_not_the_papers(name, sources, targets):
    found = sub_protocol(name)
    assert (found.number, found.name) == (0, name)
    assert (found.sources, found.targets) == (tuple(map(Domain, sources)), tuple(map(Domain, targets)))


@pytest.mark.parametrize("name", ["", "W", "_W", "W_", "WW_S", "X_W", "C_P_S", "cps_w", "SWC_P", "LCPSW_L"])
def test_what_names_no_training(name):
    with pytest.raises(ProtocolError, match=r"CPS_W.*SOURCES_TARGETS"):
        sub_protocol(name)
