"""`mmdg calibrate score`: labelled films and recordings of the simulated camera to the operating-point file.

Simulated, few and short: these tests are about what is refused and what is written, not about how good a map is.
"""

import hashlib
import json
import shutil

import pytest
from typer.testing import CliRunner

from calibration.operating_point_file import SUBSETS, read_operating_point_file
from calibration.score_calibration import CalibrationError
from mmdg_model.shipped_weights import shipped_checkpoint
from mmdg_model.stored_inputs import stored_model_hash
from mmdg_model.training.samples import Split
from pipeline.calibrating_scores import calibrate_scores, score_folders
from pipeline.calibration_sessions import CalibrationSessionsError, read_labelled_folder, score_folder
from pipeline.commands import app
from pipeline.simulated_sessions.film import camera_kind_of, load_record
from pipeline.simulated_sessions.plan import SessionOptions, plan_sessions
from pipeline.simulated_sessions.scoring import model_facts
from pipeline.simulated_sessions.studio import film_path, make_films, record_sessions
from tests.pipeline.simulated_sessions.films import record

OPTIONS = SessionOptions(frames=6, distance_m=(0.45, 0.55), profile="d4xx")
MODEL = (shipped_checkpoint() or (None,))[0]
KIND = "simulated-d4xx"


def planned(count=2, split=Split.VALIDATION):
    return plan_sessions(["bona_fide", "monitor_replay"], split, count, OPTIONS)


@pytest.fixture(scope="module")
def facts():
    return model_facts(MODEL)


@pytest.fixture(scope="module")
def films(tmp_path_factory, facts):
    """Films with their scores beside them."""
    root = tmp_path_factory.mktemp("films") / "films"
    make_films(root, planned())
    score_folder(read_labelled_folder(root), MODEL, facts)
    return root


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", "score", "--jobs", "1", *map(str, arguments)])


def index_of(root):
    return json.loads((root / "index.json").read_text())


def changed(films, tmp_path, **changes):
    """A copy whose first session says something else."""
    root = shutil.copytree(films, tmp_path / "copy")
    index = index_of(root)
    index["sessions"][0] |= changes
    (root / "index.json").write_text(json.dumps(index))
    return root


def test_the_command_writes_a_file_of_this_model_with_its_provenance(films, tmp_path):
    out, plots = tmp_path / "deep" / "points.json", tmp_path / "plots"
    answer = run(films, "--out", out, "--plots", plots, "--min-sessions", 2, "--json")
    assert answer.exit_code == 0, answer.output
    found = read_operating_point_file(out, model_sha256=stored_model_hash(MODEL))
    assert (found.data, found.model.purpose) == ("simulated", "simulated")
    assert found.sessions.total == 4
    assert found.sessions.by_species == {"bona_fide": 2, "monitor_replay": 2}
    assert found.sessions.by_label == {"attack": 2, "bona_fide": 2}
    assert found.sessions.index_sha256 == [hashlib.sha256((films / "index.json").read_bytes()).hexdigest()]
    stated = json.loads(answer.stdout)
    assert stated["calibration_id"] == found.calibration_id
    # Every subset is either in the file or named as missing, never both, never neither.
    mapped = [tuple(one.modalities) for one in found.maps]
    refused = [tuple(one["modalities"]) for one in stated["without_map"]]
    assert sorted(mapped + refused) == sorted(SUBSETS)
    assert ("rgb", "depth", "infrared") in mapped
    assert {one.camera_kind for one in found.maps} == {KIND}
    pictures = sorted(path.name for path in plots.iterdir())
    assert pictures == sorted(f"{KIND}-{'+'.join(subset)}.png" for subset in mapped)
    assert all(path.stat().st_size > 10_000 for path in plots.iterdir())


def test_recordings_of_the_same_sessions_have_the_same_scores(films, facts, tmp_path):
    root = tmp_path / "recordings"
    record_sessions(root, planned(count=1))
    recorded = score_folder(read_labelled_folder(root), MODEL, facts)
    filmed = score_folder(read_labelled_folder(films), MODEL, facts)
    for subset in SUBSETS:
        by_name = {one.key.partition("/")[2]: one for one in filmed[subset]}
        assert len(recorded[subset]) == 2
        for one in recorded[subset]:
            twin = by_name[one.key.partition("/")[2]]
            assert len(one.logits) == 6
            assert one.logits == pytest.approx(twin.logits, abs=1e-4)
            assert (one.camera_kind, one.species, one.live, one.person) == (
                KIND, twin.species, twin.live, twin.person)
    # Subsets are scored with the modalities withheld, not read from one table four times.
    first = {subset: recorded[subset][0].logits for subset in SUBSETS}
    assert len(set(first.values())) == len(SUBSETS)


def test_a_run_that_was_killed_scores_only_what_is_missing(films, facts, tmp_path):
    root = shutil.copytree(films, tmp_path / "copy")
    folder = read_labelled_folder(root)
    before = score_folder(folder, MODEL, facts)
    tables = sorted((root / "scores").glob("subsets-*/*.json"))
    assert len(tables) == 4
    tables[1].unlink()
    stamps = {path: path.stat().st_mtime_ns for path in tables if path.exists()}
    seen = []
    assert score_folder(folder, MODEL, facts, on_progress=lambda done, total: seen.append((done, total))) == before
    assert seen == [(3, 4), (4, 4)]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize(("changes", "says"), [
    ({"split": "test"}, r"split 'test': calibrate on validation sessions .*test sessions are for judging alone"),
    ({"split": "train"}, r"split 'train'.*training sessions flatter"),
    ({"label": "bona_fide", "species": "flat_print"}, "label 'bona_fide' and species 'flat_print' contradict"),
    ({"label": "maybe"}, r"'maybe'.*sessions\[0\]\.label|Invalid enum value 'maybe'"),
    ({"key": "val-bona_fide-0001-0"}, "stands there twice"),
    ({"key": "nowhere"}, r"no file .*nowhere\.npz"),
    ({"key": "../../etc/passwd"}, "index.json"),
    ({"key": ""}, "index.json"),
])
def test_sessions_that_must_not_be_calibrated_on_are_refused(films, tmp_path, changes, says):
    root = changed(films, tmp_path, **changes)
    with pytest.raises(CalibrationSessionsError, match=says):
        read_labelled_folder(root)
    answer = run(root, "--out", tmp_path / "points.json")
    assert answer.exit_code == 1
    assert not (tmp_path / "points.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"simulated": true, "kind": "films", "sessions": []}', "\xff"])
def test_what_is_no_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text, encoding="latin-1")
    with pytest.raises(CalibrationSessionsError, match=r"index\.json.*expected a folder of mmdg simulate films"):
        read_labelled_folder(tmp_path)


def test_too_few_sessions_are_refused_with_their_numbers(films, facts):
    answer = run(films, "--out", "never.json")
    assert answer.exit_code == 1
    assert "2 bona fide and 2 attack sessions with scores, expected at least 10 of each" in answer.output
    folders = [read_labelled_folder(films)]
    scored = score_folders(folders, MODEL, facts)
    live = {subset: [one for one in own if one.live] for subset, own in scored.items()}
    with pytest.raises(CalibrationError, match="2 bona fide and 0 attack"):
        calibrate_scores(live, folders, facts, command="x", created="2026-11-23", fewest=2)
    with pytest.raises(CalibrationSessionsError, match="camera kind 'd435': no session of it; there are simul"):
        calibrate_scores(scored, folders, facts, command="x", created="2026-11-23", fewest=2, camera_kinds=["d435"])


def test_the_same_sessions_count_once_and_simulated_ones_never_mix_with_recorded(films, facts, tmp_path):
    folder = read_labelled_folder(films)
    with pytest.raises(CalibrationSessionsError, match="named before; each counts once"):
        score_folders([folder, folder], MODEL, facts)
    root = shutil.copytree(films, tmp_path / "copy")
    (root / "index.json").write_text(json.dumps(index_of(root) | {"simulated": False}))
    posing = read_labelled_folder(root)
    with pytest.raises(CalibrationSessionsError, match="simulated and recorded sessions never mix"):
        score_folders([folder, posing], MODEL, facts)
    # What the sessions themselves say is believed before the index.
    with pytest.raises(CalibrationSessionsError, match=r"the index says simulated False, session .* says True"):
        score_folders([posing], MODEL, facts)


def test_altered_scores_on_disk_are_refused(films, facts, tmp_path):
    root = shutil.copytree(films, tmp_path / "copy")
    folder = read_labelled_folder(root)
    score_folder(folder, MODEL, facts)
    table = sorted((root / "scores").glob("subsets-*/*.json"))[0]
    for text in ("{", '{"camera_kind": "a", "simulated": true, "by_subset": {"rgb": [NaN]}}',
                 '{"camera_kind": "a", "simulated": true, "by_subset": {"rgb": ["1"]}}'):
        table.write_text(text)
        with pytest.raises(CalibrationSessionsError, match=r"delete it, it is made again"):
            score_folder(folder, MODEL, facts)


def test_films_say_which_kind_of_camera_made_them(films):
    filmed = load_record(film_path(films, planned()[0].key))
    assert {seen.camera_kind for seen in filmed.observations} == {KIND} == {camera_kind_of(filmed)}
    # Films from before observations carried it.
    assert camera_kind_of(record(profile="sr300", renderer="pipeline.simulated_sessions.presentation")) == (
        "simulated-sr300")
    assert camera_kind_of(record(profile="sr300", renderer="pipeline.independent_sessions")) == (
        "simulated-independent_sessions")
