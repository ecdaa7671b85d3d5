"""Inference backends behind one `Scorer`. Importing this loads no runtime; `make_scorer` loads the one it uses.

A backend that cannot run says why and which one will. None falls back to another in silence: only `auto` chooses, and
what it chose and why is in the scorer's `description` and in one log line.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmdg_model.backends.engine_scorer import EngineScorer, ScorerDescription
from mmdg_model.backends.exported_model import is_exported_model
from mmdg_model.backends.processor import has_bfloat16_products, matrix_flags

__all__ = ["Backend", "BackendError", "BackendStatus", "EngineScorer", "ScorerDescription", "backend_status",
           "make_scorer"]

_LOG = logging.getLogger(__name__)


class Backend(StrEnum):
    """Where the network is computed."""

    AUTO = "auto"
    TORCH = "torch"  # PyTorch on the processor, from a checkpoint
    CUDA = "cuda"  # PyTorch on an NVIDIA GPU, from a checkpoint
    OPENVINO = "openvino"  # OpenVINO on the processor, from an exported model


#: Precisions of each backend; OpenVINO's is fixed at export.
PRECISIONS: dict[Backend, tuple[str, ...]] = {
    Backend.TORCH: ("float32", "bfloat16"),
    Backend.CUDA: ("float32", "bfloat16", "float16"),
    Backend.OPENVINO: ("float32", "bfloat16", "int8"),
}


class BackendError(RuntimeError):
    """The asked backend or precision cannot run here; the message says why and what can."""


@dataclass(frozen=True, kw_only=True)
class BackendStatus:
    """Whether a backend can run on this machine. `reason`: what it would run on, or why it cannot and the remedy."""

    backend: Backend
    runs: bool
    reason: str


def backend_status(backend: Backend) -> BackendStatus:
    """Looks without loading anything heavy, except that CUDA asks PyTorch."""
    if backend is Backend.OPENVINO:
        return _installed(backend, "openvino", "openvino")
    status = _installed(backend, "torch", "engine")
    if not status.runs or backend is Backend.TORCH:
        return status
    if backend is Backend.CUDA:
        from mmdg_model.backends.cuda_engine import unavailable_because

        why = unavailable_because()
        return BackendStatus(backend=backend, runs=not why, reason=why or "a CUDA device is there")
    raise ValueError(f"backend is {backend}, expected one of {', '.join(PRECISIONS)}")


def make_scorer(path: Path, *, backend: str = Backend.AUTO, precision: str = "auto", threads: int = 1,
                expected_hash: str | None = None) -> EngineScorer:
    """Loads, verifies, warms up and self-tests a model.

    `auto` takes OpenVINO for an exported model; for a checkpoint CUDA where there is a device, else PyTorch on the
    processor. Precision `auto` is bfloat16 on a GPU or a processor that multiplies it in hardware, else float32.

    Args:
        path: a checkpoint file, or the directory of an exported model.
        backend: a `Backend`.
        precision: `auto` or one of the backend's; of an exported model only its own.
        threads: of the processor, at least 1.
        expected_hash: SHA-256 in hexadecimal of the checkpoint, or of the exported model's manifest.

    Raises:
        BackendError: the backend, or the precision on it, cannot run here or with this file.
        ValueError: an unknown backend, or threads below 1.
        CheckpointError, ExportedModelError: the file cannot be used.
        KnownAnswerError: the loaded model computes something else than when it was made.
    """
    if backend not in list(Backend):
        raise ValueError(f"backend is {backend!r}, expected one of {', '.join(Backend)}")
    if threads < 1:
        raise ValueError(f"threads is {threads!r}, expected at least 1")
    chosen = Backend(backend)
    if is_exported_model(path):
        scorer = _exported_scorer(path, chosen, precision, threads, expected_hash)
    else:
        scorer = _checkpoint_scorer(path, chosen, precision, threads, expected_hash)
    _LOG.info("model %s on %s", scorer.model_hash[:12], scorer.description)
    return scorer


def _exported_scorer(path: Path, backend: Backend, precision: str, threads: int,
                     expected_hash: str | None) -> EngineScorer:
    from mmdg_model.backends.exported_model import read_exported_model, read_file

    model = read_exported_model(path, expected_hash=expected_hash)
    if model.backend != Backend.OPENVINO or backend not in (Backend.AUTO, Backend.OPENVINO):
        raise BackendError(f"{path} is an exported model for {model.backend}, asked was {backend}; give the checkpoint "
                           f"that it was made from ({model.checkpoint_hash[:12]}), or use backend openvino")
    if precision not in ("auto", model.precision):
        raise BackendError(f"{path} was exported in {model.precision}, asked was {precision}; export it again with "
                           f"--precision {precision}, or ask for auto")
    _require(Backend.OPENVINO, "backend torch runs the checkpoint itself")
    from mmdg_model.backends.openvino_engine import MODEL_FILE, WEIGHTS_FILE, OpenVinoEngine

    description = ScorerDescription(
        backend=Backend.OPENVINO, precision=model.precision, threads=threads, checkpoint_hash=model.checkpoint_hash,
        reason=_with_warning("the model was exported for it", model.precision))
    engine = OpenVinoEngine(read_file(model, path, MODEL_FILE), read_file(model, path, WEIGHTS_FILE),
                            precision=model.precision, threads=threads)
    return EngineScorer(engine, description=description, model_hash=model.hash, purpose=model.purpose,
                        input_spec=model.input_spec, known_answer=model.known_answer,
                        operating_point=model.operating_point)


def _checkpoint_scorer(path: Path, backend: Backend, precision: str, threads: int,
                       expected_hash: str | None) -> EngineScorer:
    if backend is Backend.OPENVINO:
        raise BackendError(f"backend openvino runs exported models, and {path} is not one: mmdg export {path} OUT "
                           "--backend openvino, then give OUT; backend torch runs the checkpoint as it is")
    _require(Backend.TORCH, "an exported model (mmdg export, on a machine with PyTorch) needs only OpenVINO")
    from mmdg_model.backends.torch_engine import TorchEngine, cannot_be_captured_because
    from mmdg_model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path, expected_hash=expected_hash)
    uncapturable = cannot_be_captured_because(checkpoint.config)
    cuda = backend_status(Backend.CUDA)
    if backend is Backend.CUDA and (not cuda.runs or uncapturable):
        why = f"it replays captured graphs, and {uncapturable}" if cuda.runs else cuda.reason
        raise BackendError(f"backend cuda cannot run: {why}; backend torch runs here on the processor")
    reason = "asked for"
    if backend is Backend.AUTO:
        backend = Backend.CUDA if cuda.runs and not uncapturable else Backend.TORCH
        reason = uncapturable or cuda.reason if cuda.runs else f"no GPU ({cuda.reason})"
    if precision == "auto":
        precision, why = _best_precision(backend)
        reason += f"; {why}"
    if precision not in PRECISIONS[backend]:
        raise BackendError(f"precision is {precision!r}, backend {backend} has {', '.join(PRECISIONS[backend])}"
                           + ("; int8 needs an exported model: mmdg export" if precision == "int8" else ""))
    if backend is Backend.CUDA:
        from mmdg_model.backends.cuda_engine import CudaEngine

        engine: CudaEngine | TorchEngine = CudaEngine(checkpoint, precision=precision)
    else:
        engine = TorchEngine(checkpoint, precision=precision, threads=threads)
    description = ScorerDescription(backend=backend, precision=precision, checkpoint_hash=checkpoint.hash,
                                    threads=0 if backend is Backend.CUDA else threads,
                                    reason=_with_warning(reason, precision))
    return EngineScorer(engine, description=description, model_hash=checkpoint.hash, purpose=checkpoint.purpose,
                        input_spec=checkpoint.input_spec, known_answer=checkpoint.known_answer,
                        operating_point=checkpoint.operating_point)


def _best_precision(backend: Backend) -> tuple[str, str]:
    if backend is Backend.CUDA:
        return "bfloat16", "bfloat16 products are several times faster on a GPU"
    if has_bfloat16_products():
        fast = ", ".join(sorted(matrix_flags() & {"amx_bf16", "avx512_bf16"}))
        return "bfloat16", f"the processor multiplies bfloat16 in hardware ({fast})"
    return "float32", "the processor has no bfloat16 products"


def _with_warning(reason: str, precision: str) -> str:
    if precision == "bfloat16" and not has_bfloat16_products():
        return f"{reason}; this processor emulates bfloat16, float32 would be faster"
    return reason


def _installed(backend: Backend, module: str, extra: str) -> BackendStatus:
    if importlib.util.find_spec(module) is None:
        return BackendStatus(backend=backend, runs=False,
                             reason=f"{module} is not installed: pip install 'mmdg-live[{extra}]'")
    return BackendStatus(backend=backend, runs=True, reason=f"{module} {importlib.metadata.version(module)}")


def _require(backend: Backend, otherwise: str) -> None:
    status = backend_status(backend)
    if not status.runs:
        raise BackendError(f"backend {backend} cannot run: {status.reason}; or else: {otherwise}")
