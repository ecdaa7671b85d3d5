"""The signed release manifest: any exchanged part is refused by name and both hashes, and nothing stands in for it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.camera_stage import CameraNotPinned, CameraStageSettings, open_step
from pipeline.config import CameraConfig, ConfigError, CropConfig, DetectionConfig, Settings, load_settings
from pipeline.ed25519_files import KeyFileError, load_private_key, load_public_key
from pipeline.release_manifest import (
    SIGNATURE_DOMAIN,
    ManifestError,
    PinnedCamera,
    load,
    measure,
    pinned_settings,
    sign,
)
from tests.mmdg_model.builders import MICRO

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
BOTH = "%s: signed is [0-9a-f]{64}, found is [0-9a-f]{64}"
PINS = {"door": PinnedCamera(serial="sim-1", rig_sha256="ab" * 32)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    make_test_checkpoint(path, MICRO)
    return path


def configured(folder: Path, **changes: Any) -> Settings:
    (folder / "calibration.json").write_text("{}") if not (folder / "calibration.json").exists() else None
    path = folder / "live.yaml"
    path.write_text(yaml.safe_dump({
        "cameras": [{"spec": "simulated:bona_fide", "name": "door"}],
        "manifest": {"path": str(folder / "release.json"), "public_key": str(folder / "public.key"),
                     "files": {"calibration": str(folder / "calibration.json")}}, **changes}))
    return load_settings(path)


@pytest.fixture
def release(tmp_path: Path, weights: Path) -> Path:
    """A folder with a signed release in it."""
    settings = configured(tmp_path)
    sign(measure(settings, weights, cameras=PINS, created="x"), tmp_path / "release.json", KEY)
    return tmp_path


def test_the_signed_release_runs_with_everything_pinned(release: Path, weights: Path) -> None:
    pinned = pinned_settings(configured(release), weights, KEY.public_key())
    signed = load(release / "release.json", KEY.public_key())
    assert pinned.inference.sha256 == signed.weights.sha256
    assert (pinned.cameras[0].serial, pinned.cameras[0].rig_sha256) == ("sim-1", "ab" * 32)
    assert signed.input_specification is not None


@pytest.mark.parametrize(("changes", "words"), [
    ({"policy": {"apcer_max": 0.4}}, r"policy 'default': signed is [0-9a-f]{64}, found is [0-9a-f]{64}"),
    ({"policy": {"name": "other"}}, r"policy 'other': signed is nothing, found is [0-9a-f]{64}"),
    ({"cameras": [{"spec": "simulated", "name": "back"}]}, "camera 'back': only configured"),
    ({"cameras": [{"spec": "simulated", "name": "door", "serial": "sim-2"}]},
     "serial: signed is sim-1, configured is sim-2"),
    ({"inference": {"sha256": "0" * 64}}, r"inference\.sha256: signed is [0-9a-f]{64}, configured is 0{64}"),
])
def test_another_configuration_is_refused(release: Path, weights: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        pinned_settings(configured(release, **changes), weights, KEY.public_key())


def test_another_file_is_refused_by_name_and_both_hashes(release: Path, weights: Path) -> None:
    (release / "calibration.json").write_text("{ }")
    with pytest.raises(ManifestError, match=BOTH % r"calibration calibration\.json"):
        pinned_settings(configured(release), weights, KEY.public_key())
    (release / "calibration.json").unlink()
    settings = load_settings(release / "live.yaml")
    with pytest.raises(ManifestError, match=r"calibration\.json: No such file"):
        pinned_settings(settings, weights, KEY.public_key())


@pytest.mark.parametrize("role", ["calibration", "compiled_policy"])
def test_a_configured_file_that_the_manifest_does_not_name_is_refused(tmp_path: Path, weights: Path, role: str) -> None:
    """Whoever may write the configuration names no calibration or policy of his own."""
    bare = {"manifest": {"path": str(tmp_path / "release.json"), "public_key": str(tmp_path / "public.key")}}
    sign(measure(configured(tmp_path, **bare), weights, cameras=PINS, created="x"), tmp_path / "release.json", KEY)
    own = tmp_path / "own.json"
    own.write_text("{}")
    settings = msgspec.structs.replace(configured(tmp_path, **bare), **{role: str(own)})
    with pytest.raises(ManifestError, match=rf"{role} own\.json: signed is nothing, found is [0-9a-f]{{64}}"):
        pinned_settings(settings, weights, KEY.public_key())
    sign(measure(settings, weights, cameras=PINS, created="x"), tmp_path / "release.json", KEY)
    pinned_settings(settings, weights, KEY.public_key())
    own.write_text("{ }")
    with pytest.raises(ManifestError, match=BOTH % rf"{role} own\.json"):
        pinned_settings(settings, weights, KEY.public_key())
    own.unlink()
    with pytest.raises(ManifestError, match=r"own\.json: No such file"):
        pinned_settings(settings, weights, KEY.public_key())


def test_a_role_cannot_name_another_file_than_the_one_that_runs(release: Path, weights: Path) -> None:
    (release / "other.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"files\.calibration names .*calibration\.json, but .*other\.json"):
        pinned_settings(configured(release, calibration=str(release / "other.json")), weights, KEY.public_key())
    pinned_settings(configured(release, calibration=str(release / "calibration.json")), weights, KEY.public_key())


def test_other_weights_are_refused(release: Path, tmp_path: Path, weights: Path) -> None:
    changed = tmp_path / "model.safetensors"
    changed.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ManifestError, match=BOTH % r"weights model\.safetensors"):
        pinned_settings(configured(release), changed, KEY.public_key())
    changed.write_bytes(b"nothing")
    with pytest.raises(ManifestError, match="no checkpoint"):
        pinned_settings(configured(release), changed, KEY.public_key())


def resigned(release: Path, domain: bytes, key: Ed25519PrivateKey) -> None:
    blob = (release / "release.json").read_bytes()
    (release / "release.json.signature").write_bytes(base64.b64encode(key.sign(domain + blob)))


@pytest.mark.parametrize("harm", [
    lambda r: (r / "release.json.signature").unlink(), lambda r: (r / "release.json").unlink(),
    lambda r: (r / "release.json.signature").write_bytes(b""),
    lambda r: (r / "release.json.signature").write_bytes(b"not base64 \xff"),
    lambda r: (r / "release.json").write_bytes((r / "release.json").read_bytes() + b" "),
    lambda r: resigned(r, SIGNATURE_DOMAIN, OTHER),
    lambda r: resigned(r, b"", KEY),  # a signature of the same key for another use
    lambda r: resigned(r, b"mmdg-audit-v1\0", KEY),
])
def test_no_signature_of_the_pinned_key_is_a_refusal(release: Path, weights: Path, harm: Any) -> None:
    harm(release)
    with pytest.raises(ManifestError, match=r"release\.json"):
        pinned_settings(configured(release), weights, KEY.public_key())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format":"other"}', b"\xff"])
def test_a_signed_file_that_is_no_manifest_is_refused(release: Path, content: bytes) -> None:
    (release / "release.json").write_bytes(content)
    resigned(release, SIGNATURE_DOMAIN, KEY)
    with pytest.raises(ManifestError, match="no manifest of this version"):
        load(release / "release.json", KEY.public_key())


def test_each_flipped_byte_of_a_manifest_is_found(release: Path) -> None:
    path = release / "release.json"
    blob = path.read_bytes()
    for position in range(0, len(blob), 5):
        changed = bytearray(blob)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(ManifestError):
            load(path, KEY.public_key())


def test_a_manifest_without_its_key_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.manifest needs both"):
        configured(tmp_path, manifest={"path": "release.json"})


@pytest.mark.parametrize(("pin", "value"), [("serial", "another"), ("rig_sha256", "0" * 64)])
def test_another_camera_in_its_place_is_not_opened(pin: str, value: str) -> None:
    def opened(**pins: str) -> None:
        camera, _, detector = open_step("door", CameraStageSettings(
            camera=CameraConfig(spec="simulated:nobody", name="door", pace="lockstep", **pins),
            detection=DetectionConfig(), crop=CropConfig()))
        camera.close()
        detector.close()

    with pytest.raises(CameraNotPinned, match=f"{pin} is '.+', pinned is '{value}'"):
        opened(**{pin: value})
    opened()


# --- key files ------------------------------------------------------------------------------------------------------
def forms(raw: bytes, pem: bytes) -> dict[str, bytes]:
    return {"pem": pem, "hexadecimal": raw.hex().encode() + b"\n", "base64": base64.b64encode(raw)}


def test_keys_are_read_in_every_form(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = forms(KEY.private_bytes_raw(), KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = forms(KEY.public_key().public_bytes_raw(),
                   KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for name in private:
        path = tmp_path / name
        path.write_bytes(private[name])
        path.chmod(0o600)
        assert load_private_key(path).private_bytes_raw() == KEY.private_bytes_raw()
        path.write_bytes(public[name])
        assert load_public_key(path).public_bytes_raw() == KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize(("content", "words"), [
    (b"", "32"), (b"x" * 5000, "4096"), (b"\xff\xfe", "no Ed25519 key"),
    (b"-----BEGIN PRIVATE KEY-----\nAA\n", "no usable"),
    (b"00" * 31, "32"),
])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=words):
        load_private_key(path)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY.private_bytes_raw().hex().encode())
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_private_key(path)
    with pytest.raises(KeyFileError, match="No such file"):
        load_private_key(tmp_path / "nowhere")
