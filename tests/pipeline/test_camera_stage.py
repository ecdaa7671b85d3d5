"""From frame sets to observations and bundles, on simulated scenes with the real detector and registration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from align.crop import CropSettings
from capture.camera import Pace
from capture.simulated.camera import Faults, SimulatedCamera
from detect.blazeface import BlazeFaceDetector
from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline import messages
from pipeline.bundle import unpack
from pipeline.camera_stage import CameraStageSettings, CameraStep, CameraStepResult, _serve, open_step
from pipeline.channels import PULL, ROUTER, Endpoints, Poller, Sockets, drain
from pipeline.config import CameraConfig, CropConfig, DetectionConfig, settings_from
from pipeline.messages import CameraEnded, Observation, Progress
from pipeline.stage_context import StageContext
from pipeline.supervisor import Supervisor
from tests.mmdg_model.builders import MICRO


@pytest.fixture
def detector() -> Iterator[BlazeFaceDetector]:
    with BlazeFaceDetector() as made:
        yield made


def steps(detector: BlazeFaceDetector, scene: str, frames: int = 3, lockstep: bool = True) -> list[CameraStepResult]:
    with SimulatedCamera(scene, seed=1, pace=Pace.LOCKSTEP, frames=frames) as camera:
        step = CameraStep("door", camera.describe(), detector, CropSettings(), lockstep=lockstep)
        return [step.step(camera.read(1.0), {"skew": 2}) for _ in range(frames)]


def test_a_face_gives_an_observation_and_a_bundle_of_the_same_frame(detector: BlazeFaceDetector) -> None:
    for sequence, result in enumerate(steps(detector, "bona_fide")):
        assert result.bundle is not None
        header, planes = unpack(result.bundle)
        seen = result.observation
        assert (header.epoch, header.sequence, header.track_id) == (seen.epoch, seen.sequence, seen.subject)
        assert seen.sequence == sequence
        assert seen.bundle_sent
        assert seen.conditions == []
        assert seen.modalities == ["rgb", "depth", "infrared"]
        assert seen.simulated
        assert seen.counters == {"skew": 2}
        assert planes.colour.shape == (224, 224, 3)
        assert list(header.stamps_ns) == ["arrival", "detected", "cropped", "sent"]
        assert sorted(header.stamps_ns.values()) == list(header.stamps_ns.values())


@pytest.mark.parametrize(("scene", "faces", "condition"), [("nobody", 0, "no_face"),
                                                           ("two_people", 2, "multiple_faces")])
def test_nobody_and_two_people_are_conditions_without_a_bundle(detector: BlazeFaceDetector, scene: str, faces: int,
                                                               condition: str) -> None:
    for result in steps(detector, scene):
        assert result.bundle is None
        assert result.observation.subject is None
        assert not result.observation.bundle_sent
        assert len(result.observation.faces) == faces
        assert result.observation.conditions[0] == condition


def test_an_observation_holds_no_pixels(detector: BlazeFaceDetector) -> None:
    observation = steps(detector, "bona_fide", frames=1)[0].observation
    assert len(messages.encode(observation)) < 2000


def test_a_lost_camera_says_so_before_its_process_ends(detector: BlazeFaceDetector, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    endpoints = Endpoints(str(tmp_path))
    with Sockets() as opened, SimulatedCamera("nobody", seed=3, pace=Pace.REALTIME, frame_rate=50,
                                              faults=Faults(disconnect_at=3)) as camera:
        progress = opened.open(PULL, endpoints.progress, bind=True)
        decision = opened.open(ROUTER, endpoints.observations, bind=True)
        context = StageContext("camera-door", endpoints, install_signals=False)
        try:
            step = CameraStep("door", camera.describe(), detector, CropSettings(), lockstep=False)
            with pytest.raises(SystemExit) as ended:
                _serve(context, camera, step)
            assert ended.value.code == 1
            told: list[bytes] = []
            while Poller(decision).wait(2000):  # what was sent may arrive in several portions
                told += [frames[-1] for frames in drain(decision)]
                if len(told) > 1 and b"device_lost" in told[-1]:
                    break
            last = messages.decode(told[-1], CameraEnded)
            assert (last.camera, last.reason) == ("door", "device_lost")
            assert len([messages.decode(t, Observation) for t in told[:-1]]) <= 3
            Poller(progress).wait(2000)
            states = [messages.decode(frames[-1], Progress).state for frames in drain(progress)]
            assert (states[0], states[-1]) == ("ready", "ended")
        finally:
            context.close()


def test_crops_have_the_size_that_the_model_takes(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    make_test_checkpoint(model, MICRO)
    supervisor = Supervisor(settings_from({"cameras": [{"spec": "simulated:bona_fide"}]}, "test"), model,
                            on_report=lambda line: None, should_stop=lambda: True)
    given = supervisor.children["camera-camera"].arguments[-1]
    supervisor.runtime_dir.rmdir()
    assert given.crop_size == MICRO.image_size != 224
    camera, step, detector = open_step("camera", CameraStageSettings(
        camera=CameraConfig(spec="simulated:bona_fide", pace="lockstep"), detection=DetectionConfig(),
        crop=CropConfig(), crop_size=given.crop_size))
    with camera, detector:
        bundle = step.step(camera.read(1.0), {}).bundle
    assert bundle is not None
    assert unpack(bundle)[1].colour.shape == (MICRO.image_size, MICRO.image_size, 3)
