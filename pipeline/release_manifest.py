"""The signed release manifest: one file that names everything a verdict depends on by its hash.

Weights, input specification, operating point, policies, cameras with their calibration, and further files by role. The
signature, Ed25519 over the exact bytes of the manifest behind `SIGNATURE_DOMAIN`, lies beside it. Where a manifest is
configured the engine compares it with what it is about to run with, before anything is ready; any difference is a
refusal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from mmdg_model.backends.exported_model import MANIFEST_NAME, file_hash
from mmdg_model.safetensors_header import METADATA_KEY, read_header_metadata
from mmdg_model.whole_file import write_whole
from pipeline.audit_records import policy_hash
from pipeline.config import CameraConfig, Settings
from pipeline.ed25519_files import key_id

FORMAT = "mmdg-manifest-v1"
SIGNATURE_DOMAIN = b"mmdg-manifest-v1\0"
#: Appended to the manifest's name; holds the signature in base64.
SIGNATURE_SUFFIX = ".signature"
_LARGEST_BYTES = 2**20

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ManifestError(ValueError):
    """The release is not the one that was signed; names the file, what was signed, what was found, and the remedy."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PinnedFile(_Part, frozen=True, kw_only=True):
    """name: of the file when it was signed, for people; only the hash is compared."""

    name: str
    sha256: Sha256


class PinnedCamera(_Part, frozen=True, kw_only=True):
    """Serial number of a camera and hash of its rig (`capture.rig.Rig.hash`)."""

    serial: Annotated[str, Meta(min_length=1)]
    rig_sha256: Sha256


class ReleaseManifest(_Part, frozen=True, kw_only=True):
    """What is signed.

    Attributes:
        weights: the checkpoint, or `manifest.json` of an exported model, which names that model's other files.
        input_specification, operating_point: SHA-256 of their JSON within the weights; None where they have none.
        policies: SHA-256 of every value of each policy, by name (`audit_records.policy_hash`).
        cameras: by name in the configuration. files: by role; `calibration` and `compiled_policy` wherever such a file
            is configured, and those of `manifest.files`.
    """

    format: str = FORMAT
    created: str
    weights: PinnedFile
    input_specification: Sha256 | None
    operating_point: Sha256 | None
    policies: dict[str, Sha256]
    cameras: dict[str, PinnedCamera]
    files: dict[str, PinnedFile] = {}


def _json_hash(value: Any) -> str | None:
    return None if value is None else hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _pinned(path: Path) -> PinnedFile:
    try:
        return PinnedFile(name=path.name, sha256=file_hash(path))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; the release manifest covers it") from error


def _about(weights: Path) -> tuple[Path, dict[str, Any]]:
    """The file that identifies the weights, and what it says about them."""
    try:
        if weights.is_dir():
            named = weights / MANIFEST_NAME
            about = json.loads(named.read_bytes())
        else:
            named = weights
            about = json.loads(read_header_metadata(weights)[METADATA_KEY])
        if not isinstance(about, dict):
            raise ValueError("no description in it")
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"{weights}: no checkpoint or exported model that describes itself: {error}") from error
    return named, about


def measure(settings: Settings, weights: Path, *, cameras: Mapping[str, PinnedCamera], created: str) -> ReleaseManifest:
    """The manifest of what these settings would run with now. cameras: by name; their frames come later.

    Raises:
        ManifestError: a file is missing or describes nothing, or `manifest.files` names another one in its place.
    """
    named, about = _about(weights)
    return ReleaseManifest(
        created=created, weights=_pinned(named), input_specification=_json_hash(about.get("inputs")),
        operating_point=_json_hash(about.get("operating_point")),
        policies={settings.policy.name: policy_hash(settings.policy)}, cameras=dict(cameras),
        files={role: _pinned(Path(path)) for role, path in sorted(_files(settings).items())})


def _files(settings: Settings) -> dict[str, str]:
    """Every configured file that a verdict depends on beside the weights, by role: none can be left out of the list."""
    files = dict(settings.manifest.files)
    for role, path in (("calibration", settings.calibration), ("compiled_policy", settings.compiled_policy)):
        if path is None:
            continue
        if role in files and Path(files[role]).absolute() != Path(path).absolute():
            raise ManifestError(f"manifest.files.{role} names {files[role]}, but {path} is what runs; leave {role} "
                                f"out of manifest.files: it is covered where it is configured")
        files[role] = path
    return files


def sign(manifest: ReleaseManifest, path: Path, key: Ed25519PrivateKey) -> None:
    """Write manifest and signature, the signature last, so that a half-written pair is refused."""
    blob = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    write_whole(path, blob)
    signature = key.sign(SIGNATURE_DOMAIN + blob)
    write_whole(path.with_name(path.name + SIGNATURE_SUFFIX), base64.b64encode(signature) + b"\n")


def load(path: Path, key: Ed25519PublicKey) -> ReleaseManifest:
    """Read a manifest whose signature by `key` holds. Nothing of it is looked at before.

    Raises:
        ManifestError: it or its signature is missing, the signature is another key's or of other bytes, no manifest.
    """
    beside = path.with_name(path.name + SIGNATURE_SUFFIX)
    blob, signed = _bounded(path), _bounded(beside)
    try:
        key.verify(base64.b64decode(signed.strip(), validate=True), SIGNATURE_DOMAIN + blob)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise ManifestError(f"{beside}: no signature of {path.name} by the pinned key {key_id(key)}; sign the "
                            "release with `mmdg manifest sign`, or pin the key that signed it") from error
    try:
        manifest = msgspec.json.decode(blob, type=ReleaseManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: signed, but no manifest of this version: {error}") from error
    if manifest.format != FORMAT:
        raise ManifestError(f"{path}: its format is {manifest.format!r}, this version knows {FORMAT!r}")
    return manifest


def _bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; a release manifest is configured, so nothing runs without it "
                            "and its signature") from error
    if len(blob) > _LARGEST_BYTES:
        raise ManifestError(f"{path}: more than {_LARGEST_BYTES} bytes is no release manifest")
    return blob


def differences(signed: ReleaseManifest, found: ReleaseManifest) -> Iterator[str]:
    """What does not agree, each with both hashes; cameras are compared by name only, their hashes when they open."""
    def pair(what: str, wanted: str | None, is_now: str | None) -> Iterator[str]:
        if wanted != is_now:
            yield f"{what}: signed is {wanted or 'nothing'}, found is {is_now or 'nothing'}"

    yield from pair(f"weights {found.weights.name}", signed.weights.sha256, found.weights.sha256)
    yield from pair("input specification", signed.input_specification, found.input_specification)
    yield from pair("operating point", signed.operating_point, found.operating_point)
    for name in sorted(signed.policies.keys() | found.policies.keys()):
        yield from pair(f"policy {name!r}", signed.policies.get(name), found.policies.get(name))
    for role in sorted(signed.files.keys() | found.files.keys()):
        one, other = signed.files.get(role), found.files.get(role)
        name = other.name if other else one.name if one else ""
        yield from pair(f"{role} {name}", one.sha256 if one else None, other.sha256 if other else None)
    for name in sorted(signed.cameras.keys() ^ found.cameras.keys()):
        yield f"camera {name!r}: only {'signed' if name in signed.cameras else 'configured'}"


def pinned_settings(settings: Settings, weights: Path, key: Ed25519PublicKey) -> Settings:
    """Compare the configured manifest with what is about to run; the settings with everything pinned to it.

    The weights' hash is checked again by whoever loads them, and the cameras' by the process that opens them, so that
    nothing can be exchanged between this check and its use.

    Raises:
        ManifestError: see `load`; also whatever differs, all of it in one message.
    """
    assert settings.manifest.path is not None
    path = Path(settings.manifest.path)
    signed = load(path, key)
    configured = {camera.name: signed.cameras.get(camera.name, PinnedCamera(serial="?", rig_sha256="0" * 64))
                  for camera in settings.cameras}
    wrong = list(differences(signed, measure(settings, weights, cameras=configured, created="")))
    cameras: list[CameraConfig] = []
    for camera in settings.cameras:
        pin = configured[camera.name]
        wrong += [f"camera {camera.name!r} {what}: signed is {wanted}, configured is {stated}"
                  for what, stated, wanted in (("serial", camera.serial, pin.serial),
                                               ("rig", camera.rig_sha256, pin.rig_sha256))
                  if stated is not None and stated != wanted]
        cameras.append(msgspec.structs.replace(camera, serial=pin.serial, rig_sha256=pin.rig_sha256))
    if settings.inference.sha256 not in (None, signed.weights.sha256):
        wrong.append(f"inference.sha256: signed is {signed.weights.sha256}, configured is {settings.inference.sha256}")
    if wrong:
        raise ManifestError(f"{path}: this is not the release that was signed: {'; '.join(wrong)}. Put the signed "
                            "files back, or sign this release with `mmdg manifest sign`")
    return msgspec.structs.replace(settings, cameras=cameras, inference=msgspec.structs.replace(
        settings.inference, sha256=signed.weights.sha256))
