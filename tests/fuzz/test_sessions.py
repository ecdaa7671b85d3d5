"""Sessions with random faults, in virtual time: a quick share of what `make fuzz` runs."""

from pathlib import Path

import pytest

from tests.fuzz import campaign, mutants
from tests.fuzz.campaign import case_of, count, play
from tests.fuzz.plan import CONFIGURES, FAULTS
from tests.fuzz.world import FuzzLog, Violation

SEED = 20261123


def test_nothing_opens_on_faulted_evidence_and_nearly_every_honest_session_does(tmp_path):
    tally = campaign.campaign(SEED, range(900), tmp_path)
    assert tally.sessions > 2500
    assert tally.faulted > 1000
    assert mutants.opens_enough(tally)
    assert tally.unfaulted > 300
    assert tally.never_opened == 0 < tally.never
    assert {"bona_fide", "attack", "undecided"} == set(tally.verdicts)
    assert set(FAULTS) - CONFIGURES <= set(tally.by_fault), "every fault takes part"


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_alone_breaks_no_rule(name, tmp_path):
    campaign.campaign(SEED, range(6), tmp_path, names=[name])


def test_with_each_guard_removed_the_run_notices(tmp_path):
    missed = [mutant.guard for mutant in mutants.MUTANTS
              if mutants.noticed(mutant, SEED, mutants.QUICK_CASES, tmp_path) is None]
    assert not missed
    assert len(mutants.MUTANTS) >= 25
    assert len({mutant.guard for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)


def test_a_removed_guard_is_back_afterwards(tmp_path):
    for mutant in mutants.MUTANTS:
        with mutants.removed(mutant):
            pass
    campaign.campaign(SEED, range(20), tmp_path)


def test_a_mutant_whose_text_is_gone_is_an_error():
    gone = mutants.Mutant("gone", (), (mutants.Edit(mutants.Session, "score", "no such text"),))
    with pytest.raises(LookupError, match="stands 0 times"), mutants.removed(gone):
        pass


def test_a_case_follows_from_seed_and_number_alone(tmp_path):
    with FuzzLog(tmp_path / "a.jsonl", sync="never") as log:
        assert case_of(5, 7) == case_of(5, 7) != case_of(6, 7)
        assert count(case_of(5, 7), play(case_of(5, 7), log)) == count(case_of(5, 7), play(case_of(5, 7), log))


def test_a_failing_case_is_made_small_saved_and_fails_again(tmp_path):
    mutant = next(m for m in mutants.MUTANTS if m.guard == "gating conditions")
    found: list = []
    with mutants.removed(mutant):
        campaign.campaign(SEED, range(30), tmp_path, names=["gated_frames"],
                          failed=lambda _, case, violation: found.append((case, violation.rule)))
        case, rule = found[0]
        small = campaign.shrink(case, rule, tmp_path)
        assert len(small.operations) < len(case.operations) / 2
        campaign.save(small, tmp_path / "found" / "case.json", {"rule": rule})
        again = campaign.load(Path(tmp_path / "found" / "case.json"))
        assert campaign.rule_of(again, tmp_path) == rule
    assert campaign.rule_of(again, tmp_path) is None


def test_a_violation_is_raised_where_nobody_listens(tmp_path):
    mutant = next(m for m in mutants.MUTANTS if m.guard == "min_frames")
    with mutants.removed(mutant), pytest.raises(Violation):
        campaign.campaign(SEED, range(20), tmp_path)
