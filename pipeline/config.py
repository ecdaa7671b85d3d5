"""The configuration file: YAML, typed, strict; an error names the file, the YAML path, the value and the remedy."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from calibration.operating_point_file import OperatingPointFile, read_operating_point_file, value_at
from mmdg_model.stored_inputs import stored_model_hash, stored_operating_point
from pipeline.audit_log import SyncPolicy
from pipeline.kiosk_endpoint import EndpointError, parse_endpoint
from pipeline.kiosk_sockets import TransportSettings
from pipeline.lockout import LockoutLimits
from pipeline.policy import Policy, PolicyError
from pipeline.security import Role, RoleMap
from pipeline.session_guards import AuditSettings
from pipeline.yaml_file import YamlFileError, read_yaml, shown

PositiveMs = Annotated[float, Meta(gt=0)]


class ConfigError(ValueError):
    """A configuration is wrong; the message quotes the file, the YAML path and the value."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CameraConfig(_Section, frozen=True, kw_only=True):
    """One camera. spec: as for `--camera`. pace: `lockstep` only for recorded and simulated sources.

    serial, rig_sha256: of the only camera that may stand there, and of its calibration; None = any.
    """

    spec: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}$")] = "camera"
    pace: Literal["realtime", "lockstep"] = "realtime"
    seed: Annotated[int, Meta(ge=0)] = 0
    serial: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    rig_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class DetectionConfig(_Section, frozen=True, kw_only=True):
    """min_score: of the face detector, 0..1."""

    min_score: Annotated[float, Meta(gt=0, lt=1)] = 0.5


class CropConfig(_Section, frozen=True, kw_only=True):
    """view: the sensor whose geometry the planes share. face_scale: side of the crop over the side of the face box."""

    view: Literal["colour", "depth"] = "colour"
    face_scale: Annotated[float, Meta(ge=1.0, le=3.0)] = 1.3


class HubConfig(_Section, frozen=True, kw_only=True):
    """max_age_ms: a bundle whose frames arrived longer ago is dropped instead of scored."""

    max_age_ms: PositiveMs = 250.0


class InferenceConfig(_Section, frozen=True, kw_only=True):
    """The network.

    model: checkpoint, or the folder of an exported model (None: the installed checkpoint). sha256: refuse any other.
    threads: 0 = cores minus cameras. precision: None = float32 for a checkpoint, its own for an exported model;
    bfloat16 and int8 move scores a little, and thresholds must have been chosen with the arithmetic that runs.
    """

    model: str | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    workers: Annotated[int, Meta(ge=1, le=8)] = 1
    backend: Literal["auto", "torch", "cuda", "openvino"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] | None = None


class SupervisorConfig(_Section, frozen=True, kw_only=True):
    """Restart budget and liveness limits."""

    max_restarts: Annotated[int, Meta(ge=0)] = 5
    restart_window_s: Annotated[float, Meta(gt=0)] = 60.0
    silent_after_s: Annotated[float, Meta(gt=0)] = 2.0
    start_within_s: Annotated[float, Meta(gt=0)] = 60.0


RoleName = Literal["monitor", "kiosk", "operator"]


class KioskConfig(_Section, frozen=True, kw_only=True):
    """The kiosk sockets.

    endpoint: `ipc://PATH` of the command socket (events: PATH.events), or `tcp://ADDRESS:PORT` (events: PORT + 1);
    None: local sessions, a track each. users, groups: who may connect on ipc, by numeric uid and gid; none named:
    programs of our own user, as kiosks. keys: folder of `mmdg keys init`, needed on tcp; it says who may connect there.
    bind_any_address, advertised_host: serve on every address, and what clients call this machine.
    handshakes_per_minute: of one peer.
    """

    endpoint: str | None = None
    users: dict[int, RoleName] = {}
    groups: dict[int, RoleName] = {}
    keys: str | None = None
    bind_any_address: bool = False
    advertised_host: Annotated[str, Meta(pattern="^[A-Za-z0-9.:-]{1,253}$")] | None = None
    handshakes_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 240

    def check(self) -> None:
        """Raise `ValueError`, naming the YAML path, for an endpoint that would not be served."""
        if self.endpoint is None:
            return
        try:
            endpoint = parse_endpoint(self.endpoint, bind_any_address=self.bind_any_address,
                                      advertised_host=self.advertised_host)
        except EndpointError as error:
            raise ValueError(f"{error} - at `$.kiosk.endpoint`") from error
        if endpoint.is_tcp and self.keys is None:
            raise ValueError(f"{self.endpoint!r}: tcp is served only with keys: mmdg keys init FOLDER, and name the "
                             "folder at `$.kiosk.keys`")
        if endpoint.is_tcp and (self.users or self.groups):
            raise ValueError("a tcp peer has no uid or gid; name clients with mmdg keys client, not at `$.kiosk.users` "
                             "or `$.kiosk.groups`")

    @property
    def transport(self) -> TransportSettings:
        """The same as settings of the sockets."""
        return TransportSettings(keys=self.keys, bind_any_address=self.bind_any_address,
                                 advertised_host=self.advertised_host,
                                 handshakes_per_minute=self.handshakes_per_minute)

    @property
    def roles(self) -> RoleMap:
        """The same as roles."""
        if not self.users and not self.groups:
            return RoleMap.own_user()
        return RoleMap(uids={uid: Role[name.upper()] for uid, name in self.users.items()},
                       gids={gid: Role[name.upper()] for gid, name in self.groups.items()})


class AuditConfig(_Section, frozen=True, kw_only=True):
    """The audit log (docs/audit.md).

    path: of its current file, `*.jsonl`; None = none is kept. max_bytes: then the file is rotated. sync: which records
    are flushed to the disk before anybody is told. signing_key: file of an Ed25519 private key; sign_every: records.
    """

    path: Annotated[str, Meta(pattern=r"\.jsonl$")] | None = None
    max_bytes: Annotated[int, Meta(ge=65_536)] = 16 * 2**20
    sync: SyncPolicy = "decisions"
    signing_key: str | None = None
    sign_every: Annotated[int, Meta(ge=1, le=100_000)] = 256

    @property
    def settings(self) -> AuditSettings | None:
        """The same for the decision stage."""
        if self.path is None:
            return None
        return AuditSettings(path=Path(self.path), max_bytes=self.max_bytes, sync=self.sync, sign_every=self.sign_every,
                             signing_key=None if self.signing_key is None else Path(self.signing_key))


class LockoutConfig(LockoutLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the lock-out. path: keeps it across restarts; None = it lasts as long as the engine runs."""

    path: str | None = None

    @property
    def limits(self) -> LockoutLimits:
        """Without the path."""
        return LockoutLimits(**{key: getattr(self, key) for key in LockoutLimits.__struct_fields__})


class ManifestConfig(_Section, frozen=True, kw_only=True):
    """The signed release manifest (docs/audit.md).

    path: of the manifest, its signature beside it with `.signature`; None = none is asked for. public_key: the only key
    whose signature counts. files: by role, further files that the manifest must name, such as `calibration`.
    """

    path: str | None = None
    public_key: str | None = None
    files: dict[str, str] = {}


class Settings(_Section, frozen=True, kw_only=True):
    """Everything `mmdg-live` runs with.

    compiled_policy: file of `mmdg policy compile`, in the YAML relative to the configuration file; it takes the place
    of `policy` and pins the checkpoint that its threshold was measured with.
    calibration: operating-point file (docs/calibration.md). calibration_id: refuse any other than this one; a compiled
    policy pins the one that its threshold was measured with, `none` where it was measured without any.
    """

    cameras: Annotated[list[CameraConfig], Meta(min_length=1, max_length=8)]
    detection: DetectionConfig = DetectionConfig()
    crop: CropConfig = CropConfig()
    hub: HubConfig = HubConfig()
    inference: InferenceConfig = InferenceConfig()
    policy: Policy = Policy()
    compiled_policy: Annotated[str, Meta(min_length=1)] | None = None
    kiosk: KioskConfig = KioskConfig()
    supervisor: SupervisorConfig = SupervisorConfig()
    audit: AuditConfig = AuditConfig()
    lockout: LockoutConfig = LockoutConfig()
    manifest: ManifestConfig = ManifestConfig()
    runtime_dir: str | None = None
    calibration: Annotated[str, Meta(min_length=1)] | None = None
    calibration_id: Annotated[str, Meta(pattern="^([0-9a-f]{16}|none)$")] | None = None


_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]+)`(?: - at `(?P<path>[^`]+)`)?")


def _known_keys(path: str) -> list[str]:
    kind: Any = Settings
    for key in re.findall(r"\.([^.\[\]]+)", path):
        kind = {field.name: field.type for field in msgspec.structs.fields(kind)}.get(key)
        kind = CameraConfig if key == "cameras" else kind
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return []
    return [field.name for field in msgspec.structs.fields(kind)]


def settings_from(raw: Any, place: str) -> Settings:
    """Typed settings from plain data; `place` names the source in errors.

    Raises:
        ConfigError: unknown key (with a guess), wrong type, value out of range.
    """
    try:
        settings = msgspec.convert(raw, Settings)
        settings.policy.check("$.policy")
        settings.kiosk.check()
    except PolicyError as error:
        raise ConfigError(f"{place}: {error}") from error
    except msgspec.ValidationError as error:
        text = str(error)
        if unknown := _UNKNOWN.search(text):
            path = unknown["path"] or "$"
            known = _known_keys(path)
            guess = difflib.get_close_matches(unknown["key"], known, n=1)
            hint = f"did you mean {guess[0]!r}?" if guess else f"known here: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key {unknown['key']!r} at {path}; {hint}") from error
        located = re.search(r"at `([^`]+)`", text)
        value = f" (it is {shown(value_at(raw, located[1]))})" if located else ""
        raise ConfigError(f"{place}: {text}{value}") from error
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error
    if settings.policy.threshold_id is not None:
        raise ConfigError(f"{place}: $.policy.threshold_id: {settings.policy.threshold_id!r} cannot be claimed; name "
                          "the file of `mmdg policy compile` as $.compiled_policy")
    if (settings.manifest.path is None) != (settings.manifest.public_key is None):
        raise ConfigError(f"{place}: $.manifest needs both path ({settings.manifest.path!r}) and public_key "
                          f"({settings.manifest.public_key!r}): a manifest counts for the key that signed it")
    names = [camera.name for camera in settings.cameras]
    if len(set(names)) != len(names):
        raise ConfigError(f"{place}: two cameras share a name at $.cameras: {names}; give each its own 'name'")
    return settings


def load_settings(path: Path, overrides: dict[str, Any] | None = None) -> Settings:
    """Read a YAML file; `overrides` (from the command line) replace its top-level keys.

    Raises:
        ConfigError: missing or unreadable file, not YAML, not a mapping, or as `settings_from`.
    """
    try:
        raw = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check the path given with --config") from error
    except YamlFileError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping at the top level, got {type(raw).__name__}")
    merged = {**raw, **(overrides or {})}
    settings = settings_from(merged, str(path))
    if settings.compiled_policy is None:
        return settings
    if "policy" in merged:
        raise ConfigError(f"{path}: policy and compiled_policy at $: a compiled policy brings all its values; keep one")
    return _with_compiled_policy(settings, path)


def _with_compiled_policy(settings: Settings, path: Path) -> Settings:
    """The policy of the compiled file, with its checkpoint and its calibration alone.

    Raises:
        ConfigError: the file is none, or the configuration pins another checkpoint or calibration.
    """
    from pipeline.policy_compiler import CompiledPolicyError, read_compiled

    assert settings.compiled_policy is not None
    try:
        compiled = read_compiled(path.parent / settings.compiled_policy)
    except CompiledPolicyError as error:
        raise ConfigError(f"{path}: $.compiled_policy: {error}") from error
    pinned, measured = settings.inference.sha256, compiled.provenance.model_hash
    if pinned not in (None, measured):
        raise ConfigError(f"{path}: $.inference.sha256 is {pinned}, but the threshold of $.compiled_policy was "
                          f"measured with checkpoint {measured}; compile the policy for the checkpoint that runs")
    calibration_id = compiled.provenance.calibration_id
    if settings.calibration_id not in (None, calibration_id):
        raise ConfigError(f"{path}: $.calibration_id is {settings.calibration_id}, but the threshold of "
                          f"$.compiled_policy was measured with calibration {calibration_id}; compile the policy with "
                          "the calibration that runs")
    return msgspec.structs.replace(settings, policy=compiled.in_force(), calibration_id=calibration_id,
                                   compiled_policy=str(path.parent / settings.compiled_policy),
                                   inference=msgspec.structs.replace(settings.inference, sha256=measured))


def load_calibration(settings: Settings, model: Path) -> OperatingPointFile | None:
    """The operating-point file that is named, checked against the model that is going to run and the policy.

    Raises:
        OperatingPointFileError: as `read_operating_point_file`, or of another model. OSError: no such model.
        PolicyError: the policy cannot be served with it, or another calibration is pinned than the one that would run:
            a threshold is worth nothing on evidence by another calibration.
        OperatingPointError: a calibration is pinned and the model does not say which it carries.
    """
    wanted, found = settings.calibration_id, None
    if settings.calibration is not None:
        found = read_operating_point_file(Path(settings.calibration), model_sha256=stored_model_hash(model))
    if wanted is not None:
        point = stored_operating_point(model) if found is None else None
        here = found.calibration_id if found is not None else "none" if point is None else point.calibration_id
        if here != wanted:
            pin = (f"the threshold of compiled_policy {settings.compiled_policy} was measured with calibration {wanted}"
                   if settings.compiled_policy is not None else f"$.calibration_id is {wanted}")
            that = f"{settings.calibration} is" if found is not None else "without a file the checkpoint's own one is"
            raise PolicyError(f"calibration: {pin}, {that} {here}; name the file of {wanted} as $.calibration, or "
                              "compile the policy with what runs (mmdg policy compile --calibration FILE)")
    if found is None:
        return None
    settings.policy.check_calibration(found, "$.policy")
    return found


def worker_threads(settings: Settings, cores: int | None = None) -> int:
    """Threads of one inference worker: cores minus busy cameras, at least one.

    Measured (docs/streaming.md): two OpenMP threads beside one busy camera on two cores ran 16 times slower.
    """
    if settings.inference.threads:
        return settings.inference.threads
    available = len(os.sched_getaffinity(0)) if cores is None else cores
    return max(1, (available - len(settings.cameras)) // settings.inference.workers)
