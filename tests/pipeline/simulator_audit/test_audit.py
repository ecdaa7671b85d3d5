"""The audit on real, tiny trees: too few recordings to resolve much, enough to see that every check runs."""

import json

import pytest
from typer.testing import CliRunner

from mmdg_model.training.samples import Domain
from pipeline.commands import app
from pipeline.simulated_benchmark import make_benchmark, plan_benchmark
from pipeline.simulator_audit.audit import sorted_trees
from pipeline.simulator_audit.findings import Findings, Status
from pipeline.simulator_audit.frames import AuditError, read_tree
from pipeline.simulator_audit.probing import area_of, cnn_scores, linear_scores, planted
from tests.pipeline.simulated_tree import simulated_tree  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def null_tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("null") / "tree"
    make_benchmark(root, plan_benchmark("tiny", domains=[Domain.WMCA, Domain.CASIA_SURF], physics=False), jobs=2)
    return root


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_frame_is_read_with_what_its_record_says(simulated_tree):  # noqa: F811
    tree = read_tree(simulated_tree)
    assert tree.physics
    assert len(tree.frames) == sum(lines for lines, _ in tree.counts.values())
    assert tree.frames.live.sum() == sum(live for _, live in tree.counts.values())
    assert set(tree.frames.recording) <= {each.key for each in tree.recordings}
    assert all(len(values) == len(tree.frames) for values in tree.frames.probes.values())


def test_probes_find_a_planted_leak_and_are_at_chance_without(null_tree):
    tree = read_tree(null_tree)
    assert not tree.physics
    leaky = planted(tree.frames)
    for scores in (lambda frames: linear_scores(frames, ("thumbnail colour",), by_domain=False),
                   lambda frames: cnn_scores(frames, steps=60)):
        assert area_of(leaky, scores(leaky)).low_wide > 0.5  # the audit's own rule for what is found
        assert area_of(tree.frames, scores(tree.frames)).low_wide <= 0.5


def test_the_command_writes_one_report_and_says_by_its_exit_code_that_a_bound_failed(
        simulated_tree, null_tree, tmp_path):  # noqa: F811
    specification = tmp_path / "difficulty.json"
    answer = mmdg("simulate", "audit", simulated_tree, null_tree, "--out", tmp_path / "report", "--steps", 2,
                  "--commit", specification)
    assert answer.exit_code in (0, 3), answer.output
    assert "null attacks" in answer.stderr  # no terminal: a line a stage
    assert "sensor noise" in answer.stderr
    report = json.loads((tmp_path / "report" / "audit.json").read_text())
    failed = [line for line in report["lines"] if line["status"] == "FAILED"]
    assert (answer.exit_code == 3) == bool(failed)
    assert report["simulated"] is True
    assert {line["check"].partition(" ")[0] for line in report["lines"]} == {"1", "2", "3", "4", "5", "6", "7"}
    assert all(line["value"] == line["value"] for line in report["lines"])
    text = (tmp_path / "report" / "audit.md").read_text()
    assert "Everything here is simulated" in text
    for picture in ("single_cues.png", "modalities.png"):
        assert (tmp_path / "report" / picture).stat().st_size > 1000
        assert picture in text
    assert mmdg("simulate", "audit", "--check", specification).exit_code == 0


def test_what_cannot_be_audited_says_why(simulated_tree, tmp_path):  # noqa: F811
    assert mmdg("simulate", "audit").exit_code == 2
    answer = mmdg("simulate", "audit", tmp_path)
    assert answer.exit_code == 1
    assert "simulated.json" in answer.stderr
    tree = read_tree(simulated_tree)
    with pytest.raises(AuditError, match="both of seed 0"):
        sorted_trees([tree, tree])


def test_status_counts_are_of_lines():
    assert [Findings().count(status) for status in Status] == [0, 0, 0, 0]
