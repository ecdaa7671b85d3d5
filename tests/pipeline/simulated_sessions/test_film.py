"""Films of the real simulated camera through the real camera step: whole, equal by seed, equal when read back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from capture.camera import EndOfStreamError, Pace
from capture.recording import RecordingReader
from capture.replay import ReplayCamera
from mmdg_model.training.samples import Split
from mmdg_model.training.simulated_tree import MARK
from pipeline.simulated_sessions import studio
from pipeline.simulated_sessions.film import FilmError, film_session, load_film, load_record, save_film
from pipeline.simulated_sessions.plan import SessionOptions, plan_sessions
from pipeline.simulated_sessions.presentation import SessionCamera, session_scene
from pipeline.simulated_sessions.studio import film_path, make_films, read_index, record_sessions, recording_path
from pipeline.simulated_trees.domains import SimulationError
from pipeline.supervisor import ExitCode
from tests.pipeline.live_run import live_run

OPTIONS = SessionOptions(frames=3, distance_m=(0.5, 0.5))
SCENES = ["bona_fide", "silicone_mask"]


def planned(count=1, options=OPTIONS):
    return plan_sessions(SCENES, Split.VALIDATION, count, options)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root = tmp_path_factory.mktemp("films") / "films"
    outcome = make_films(root, planned())
    assert outcome.sessions == 2
    assert outcome.missed.total() == 0
    return root


def copied(films, tmp_path):
    return shutil.copytree(films, tmp_path / "copy")


def test_a_film_is_what_the_live_camera_step_gives(films):
    for each in planned():
        film = load_film(film_path(films, each.key))
        assert [observation.sequence for observation in film.record.observations] == [0, 1, 2]
        assert [observation.stamp_ns for observation in film.record.observations] == [0, 100_000_000, 200_000_000]
        assert all(observation.simulated and observation.bundle_sent for observation in film.record.observations)
        assert len(film.crops) == 3
        for crop in film.crops:
            assert crop.colour.shape == (112, 112, 3)
            middle = crop.depth[40:72, 40:72][crop.depth_valid[40:72, 40:72]]
            assert np.median(middle) * crop.depth_unit_m == pytest.approx(0.5, abs=0.06)
        assert film.record.truth.distance_m == 0.5


def test_a_film_reads_back_as_it_was_written(films, tmp_path):
    film = load_film(film_path(films, planned()[0].key))
    size = save_film(tmp_path / "again.npz", film)
    again = load_film(tmp_path / "again.npz")
    assert again.record == film.record
    for before, after in zip(film.crops, again.crops, strict=True):
        for name in ("colour", "colour_valid", "depth", "depth_valid", "infrared", "infrared_valid"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert (tmp_path / "again.npz").read_bytes() == film_path(films, planned()[0].key).read_bytes()
    assert size < 3 * 80_000


def test_depth_that_falls_along_a_row_survives_the_differences(films, tmp_path):
    film = load_film(film_path(films, planned()[0].key))
    steep = np.tile(np.array([65535, 0, 1, 40000], np.uint16), (112, 28))
    changed = replace(film, crops=tuple(replace(crop, depth=steep) for crop in film.crops))
    save_film(tmp_path / "steep.npz", changed)
    assert np.array_equal(load_film(tmp_path / "steep.npz").crops[1].depth, steep)


def test_what_is_missing_is_filmed_again_to_the_same_bytes(films, tmp_path):
    root = copied(films, tmp_path)
    lost = film_path(root, planned()[1].key)
    before = lost.read_bytes()
    lost.unlink()
    progress = []
    make_films(root, planned(), on_progress=lambda *counts: progress.append(counts))
    assert progress == [(1, 2), (2, 2)]
    assert lost.read_bytes() == before


def test_finished_films_are_left_alone_and_need_no_detector(films, monkeypatch):
    monkeypatch.setattr(studio, "make_film_worker", lambda *_: pytest.fail("nothing is left to film"))
    make_films(films, planned())
    assert [truth.key for truth in read_index(films)] == sorted(each.key for each in planned())


@pytest.mark.parametrize(("change", "says"), [
    (lambda root: (root, planned(options=replace(OPTIONS, seed=1))), "another specification"),
    (lambda root: (root.parent, planned()), "not empty"),
    (lambda root: (root, [*planned(), *planned()]), "each session once"),
])
def test_two_kinds_of_sessions_never_share_a_folder(films, tmp_path, change, says):
    root, sessions = change(copied(films, tmp_path))
    with pytest.raises(SimulationError, match=says):
        make_films(root, sessions)


def test_a_damaged_film_is_refused_by_name(films, tmp_path):
    root = copied(films, tmp_path)
    path = film_path(root, planned()[0].key)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(FilmError, match=r"val-bona_fide-0000-0\.npz"):
        load_record(path)


def test_truth_describes_the_person_whatever_is_presented(films):
    live, attack = (load_record(film_path(films, each.key)).truth for each in planned())
    assert (live.label, attack.label) == ("bona_fide", "attack")
    assert attack.instrument.startswith("silicone_mask-")
    for name in ("person", "head", "skin_tone", "hair", "spectacles", "beard", "distance_m", "place", "serial"):
        assert getattr(live, name) == getattr(attack, name), name


def test_any_camera_may_film(films):
    """Another renderer gets the planned session and gives a camera."""
    from detect.blazeface import BlazeFaceDetector

    each = planned()[0]
    with BlazeFaceDetector() as detector:
        film = film_session(SessionCamera(each), load_record(film_path(films, each.key)).truth, detector, crop_size=64)
    assert film.crops[0].colour.shape == (64, 64, 3)
    with pytest.raises(SimulationError, match="camera factory 'nowhere:nobody'"):
        make_films(Path("unused"), planned(), factory="nowhere:nobody")


@pytest.mark.parametrize(("options", "held_out"), [(OPTIONS, False), (replace(OPTIONS, held_out_heads=True), True)])
def test_heads_are_of_the_family_that_was_asked_for(options, held_out):
    from capture.simulated.heads import load_heads
    from pipeline.simulated_sessions.presentation import head_number

    for each in planned(4, options):
        assert bool(load_heads().held_out[head_number(each)]) == held_out


def test_an_instrument_is_turned_and_stays_where_it_is():
    straight, turned = (session_scene(planned(options=replace(OPTIONS, yaw_deg=yaw))[1]) for yaw in (0.0, 30.0))
    before, after = (next(body for body in scene.bodies if body.face_points is not None).motion.pose(0.3)
                     for scene in (straight, turned))
    between = after.rotation @ before.rotation.T
    assert np.degrees(np.arccos((np.trace(between) - 1) / 2)) == pytest.approx(30.0, abs=1e-6)
    pivot = np.array(next(body for body in straight.bodies if body.face_points is not None).motion.pivot_m)
    assert after.rotation @ pivot + after.translation == pytest.approx(before.rotation @ pivot + before.translation)


def test_recordings_say_that_they_are_simulated_and_play(tmp_path):
    outcome = record_sessions(tmp_path / "sessions", planned())
    assert outcome.frames == {"bona_fide": 3, "silicone_mask": 3}
    for each in planned():
        path = recording_path(tmp_path / "sessions", each.key)
        with ReplayCamera(path, Pace.LOCKSTEP) as camera:
            assert [camera.read(1.0).sequence for _ in range(3)] == [0, 1, 2]
            with pytest.raises(EndOfStreamError):
                camera.read(1.0)
        with RecordingReader(path) as reader:
            assert reader.manifest.simulated
            assert reader.manifest.label == each.recording.species
    index = json.loads((tmp_path / "sessions" / "index.json").read_text())
    assert index["simulated"] is True
    assert [(row["species"], row["label"]) for row in index["sessions"]] == [
        ("bona_fide", "bona_fide"), ("silicone_mask", "attack")]
    assert json.loads((tmp_path / "sessions" / MARK).read_text())["simulated"] is True


@pytest.mark.processes
def test_a_killed_run_goes_on_where_it_was(films, tmp_path):
    """SIGKILL in the middle: no half film is left under its name, no worker stays, the rest is made by a second run."""
    root, sessions = tmp_path / "films", planned(2)
    program = ("import sys; from pathlib import Path; from dataclasses import replace\n"
               "from tests.pipeline.simulated_sessions.test_film import planned\n"
               "from pipeline.simulated_sessions.studio import make_films\n"
               "if __name__ == '__main__': make_films(Path(sys.argv[1]), planned(2), jobs=2)\n")
    script = tmp_path / "run.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script), str(root)], env={
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    deadline = time.monotonic() + 60
    while not list(root.glob("films/*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in root.glob("films/*.npz"):
        load_film(path)
    make_films(root, sessions, jobs=1)
    shared = planned()[0].key
    assert film_path(root, shared).read_bytes() == film_path(films, shared).read_bytes()


@pytest.mark.processes
def test_a_recorded_session_runs_through_the_live_pipeline(tmp_path):
    session = plan_sessions(["bona_fide"], Split.TEST, 1, replace(OPTIONS, frames=6))
    record_sessions(tmp_path / "sessions", session)
    path = recording_path(tmp_path / "sessions", session[0].key)
    with live_run("--camera", f"replay:{path}", "--pace", "lockstep") as run:
        assert run.wait(120) == ExitCode.OK, run.transcript()
    assert [event["sequence"] for event in run.events if event["type"] == "score"] == list(range(6))
    decisions = [event for event in run.events if event["type"] == "decision"]
    assert decisions
    # The test checkpoint decides nothing; whatever decides is told that this is simulated.
    assert all(event["verdict"] == "undecided" and event["simulated"] for event in decisions)
