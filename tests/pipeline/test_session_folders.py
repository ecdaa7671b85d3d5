"""Recordings as evidence: judged like films of the same sessions, told apart from films, counted by person."""

import dataclasses
import json
import shutil

import pytest

from capture.simulated.camera import SimulatedCamera
from mmdg_model.scorer import Purpose
from mmdg_model.shipped_weights import shipped_checkpoint
from mmdg_model.training.samples import Split
from pipeline.calibration_sessions import CalibrationSessionsError
from pipeline.commands.record import record_camera
from pipeline.policy import SIMULATED_POLICY
from pipeline.session_folders import SessionFolderError, check_one_world, read_session_folder, scored_records
from pipeline.simulated_sessions.compiling import check_sessions, refuse_repeats, session_peaks
from pipeline.simulated_sessions.plan import SessionOptions, plan_sessions
from pipeline.simulated_sessions.presentation import session_camera
from pipeline.simulated_sessions.scoring import model_facts
from pipeline.simulated_sessions.studio import make_films, record_sessions, recording_path
from pipeline.simulated_trees.domains import SimulationError

MODEL = (shipped_checkpoint() or (None,))[0]
PLANNED = plan_sessions(["bona_fide", "flat_print"], Split.VALIDATION, 1,
                        SessionOptions(frames=6, distance_m=(0.45, 0.55), profile="d4xx"))


@pytest.fixture(scope="module")
def facts():
    return model_facts(MODEL)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings") / "simulated"
    record_sessions(root, PLANNED)
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder as an integrator makes it. The simulated camera does not say that it is one: it stands for any other."""
    root = tmp_path_factory.mktemp("recordings") / "labelled"
    (root / "recordings").mkdir(parents=True)
    rows = []
    for number, each in enumerate(PLANNED):
        record_camera(AsIfReal(session_camera(each)), recording_path(root, f"000{number}"), frames=6)
        species = each.recording.species
        rows.append({"key": f"000{number}", "split": "val", "species": species, "person": "p07",
                     "label": "bona_fide" if species == "bona_fide" else "attack"})
    (root / "index.json").write_text(json.dumps({"simulated": False, "kind": "recordings", "sessions": rows}))
    return root


class AsIfReal:
    """A camera whose description does not say that it is simulated."""

    def __init__(self, camera: SimulatedCamera) -> None:
        self._camera = camera

    def open(self):
        opened = self._camera.open()
        self.description = dataclasses.replace(opened, simulated=False)
        return self.description

    def __getattr__(self, name):
        return getattr(self._camera, name)


def test_recordings_are_judged_as_films_of_the_same_sessions_and_known_to_be_the_same(simulated, facts, tmp_path):
    make_films(tmp_path / "films", PLANNED)
    folders = [read_session_folder(root) for root in (tmp_path / "films", simulated)]
    with pytest.raises(SimulationError, match="counted twice it would be evidence that is not there"):
        refuse_repeats(folders)
    with pytest.raises(SimulationError, match=r"2 sessions, such as .*, are in .*, too, which calibrated the scores"):
        check_sessions(folders[:1], folders[1:], "which calibrated the scores")
    filmed, recorded = (scored_records(folder, MODEL, facts) for folder in folders)
    for one, other in zip(*(session_peaks(records, scores, SIMULATED_POLICY, facts.info)
                            for records, scores in (filmed, recorded)), strict=True):
        assert one.peak == pytest.approx(other.peak, abs=1e-3)
        assert dataclasses.replace(one, peak=0.0) == dataclasses.replace(other, peak=0.0)
    assert all(len(scores) == 6 for scores in recorded[1].values())


def test_a_labelled_recording_says_what_its_index_says_and_nothing_more(labelled, facts):
    folder = read_session_folder(labelled)
    assert (folder.kind, folder.simulated) == ("recordings", False)
    with pytest.raises(SessionFolderError, match="trained on simulated data alone and decides nothing on recordings"):
        check_one_world([folder], facts)
    records, scores = scored_records(folder, MODEL, facts)
    truth = records[0].truth
    assert (truth.person, truth.skin_tone, truth.head, truth.distance_m, truth.instrument) == ("p07", None, None, None,
                                                                                              "")
    assert (truth.frames, truth.frame_rate) == (6, pytest.approx(10.0))
    release = dataclasses.replace(facts.info, purpose=Purpose.RELEASE)
    check_one_world([folder], dataclasses.replace(facts, info=release))
    peaks = session_peaks(records, scores, SIMULATED_POLICY, release)
    assert [(one.species, one.person, one.responded) for one in peaks] == [("bona_fide", "p07", True),
                                                                          ("flat_print", "p07", True)]
    # Made once: nothing is read again, and a corrected label needs no scoring.
    kept = {path: path.stat().st_mtime_ns for path in (labelled / "scores").rglob("*.json")}
    assert len(kept) == 2
    assert scored_records(read_session_folder(labelled), MODEL, facts)[1] == scores
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize(("change", "error", "says"), [
    (lambda root, index: index["sessions"][0].update(split="train"), CalibrationSessionsError,
     "split 'train', expected val or test: training sessions flatter"),
    (lambda root, index: shutil.copy(recording_path(root, "0000"), recording_path(root, "0001")), SessionFolderError,
     "0000 and 0001 are the same bytes; each session is evidence once"),
    (lambda root, index: index["sessions"][0].update(spectacles="maybe"), SessionFolderError, "session '0000'.*bool"),
    (lambda root, index: recording_path(root, "0001").unlink(), CalibrationSessionsError, "no file"),
])
def test_an_index_that_does_not_fit_is_refused(labelled, tmp_path, change, error, says):
    root = shutil.copytree(labelled, tmp_path / "copy")
    index = json.loads((root / "index.json").read_text())
    change(root, index)
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(error, match=says):
        read_session_folder(root)


def test_simulated_and_recorded_sessions_never_mix_and_an_index_cannot_pretend(simulated, labelled, facts, tmp_path):
    with pytest.raises(SessionFolderError, match="never mix"):
        check_one_world([read_session_folder(simulated), read_session_folder(labelled)], facts)
    root = shutil.copytree(labelled, tmp_path / "copy", ignore=shutil.ignore_patterns("scores"))
    index = json.loads((root / "index.json").read_text()) | {"simulated": True}
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(SessionFolderError, match="the index says simulated True, the recording says False"):
        scored_records(read_session_folder(root), MODEL, facts)
