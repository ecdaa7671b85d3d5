import json
from dataclasses import replace

import pytest

from pipeline.simulated_trees import domains
from pipeline.simulator_audit import difficulty
from pipeline.simulator_audit.findings import Findings, number_line
from pipeline.simulator_audit.frames import AuditError


@pytest.fixture
def committed(tmp_path):
    findings = Findings()
    findings.add(number_line("4", "holes", "all", 0.0, "≥ 0.01", False))
    path = tmp_path / "difficulty.json"
    difficulty.write_difficulty(path, findings, [])
    return path


def test_what_was_committed_passes_and_says_what_did_not_hold(committed):
    assert difficulty.check_difficulty(committed) == []
    content = json.loads(committed.read_text())
    assert content["simulated"] is True
    assert content["audit"]["failed"] == 1
    assert content["audit"]["not_held"] == ["4: holes, all: 0.0 (≥ 0.01)"]


def test_an_easier_domain_is_refused(committed, monkeypatch):
    domain, specification = next(iter(domains.DOMAINS.items()))
    monkeypatch.setattr(domains, "DOMAINS", {**domains.DOMAINS, domain: replace(specification, places=1)})
    with pytest.raises(AuditError, match="audit the new domains and commit them"):
        difficulty.check_difficulty(committed)


def test_a_looser_bound_is_refused_by_name(committed, monkeypatch):
    monkeypatch.setattr(difficulty, "BOUNDS", replace(difficulty.BOUNDS, leak=0.75))
    with pytest.raises(AuditError, match=r"other bounds \(leak\)"):
        difficulty.check_difficulty(committed)


def test_other_source_under_the_same_specification_is_told(committed):
    content = json.loads(committed.read_text())
    committed.write_text(json.dumps({**content, "simulator_sha256": "0" * 64}))
    (warning,) = difficulty.check_difficulty(committed)
    assert "source has changed" in warning


@pytest.mark.parametrize("text", ["", "[]", '{"bounds": {}}'])
def test_a_damaged_or_missing_file_says_how_to_make_it(tmp_path, text):
    path = tmp_path / "difficulty.json"
    if text:
        path.write_text(text)
    with pytest.raises(AuditError, match="--commit FILE"):
        difficulty.check_difficulty(path)
