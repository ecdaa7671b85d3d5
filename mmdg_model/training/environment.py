"""`environment.json`: what a run ran on. Nothing in it decides anything; it says what may explain a difference."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmdg_model.architectures import Network, architecture_of
from mmdg_model.training.compute import Compute
from mmdg_model.training.run_config import MachineConfig, RunConfig
from mmdg_model.training.run_data import RunData
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.simulated_tree import read_simulated_tree
from mmdg_model.whole_file import write_whole

_PACKAGES = ("mmdg-live", "torch", "numpy", "opencv-contrib-python-headless", "lightning-fabric", "safetensors",
             "pyarrow", "scipy")


def program() -> str:
    """Name and version, as checkpoints say who made them."""
    return f"mmdg-live {_version('mmdg-live') or 'from a source tree'}"


def describe_run(config: RunConfig, data: RunData, network: nn.Module, root: Path) -> dict[str, Any]:
    """What stays the same over all starts of a run: data, backbone, network, what of it trains.

    Raises:
        ManifestError: the tree says that it is simulated, but not how.
    """
    parameters = list(network.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    tree = read_simulated_tree(root)
    # Other networks have a model configuration, too (plain ViTs); a live scorer would build MMDG of it.
    described = ({"architecture": str(architecture_of(network.config)), "model": network.config.to_dict()}
                 if isinstance(network, Network) else None)
    return {
        "run": config.hash,
        "data": {"fingerprint": data.fingerprint, "simulated": data.simulated, "sources": list(data.classes.sources),
                 "updates_per_epoch": data.updates_per_epoch, "inputs": data.inputs.to_dict(),
                 "levels_written_as": tree.inputs.to_dict() if tree is not None else None},
        "backbone": config.backbone or ("random, all weights train" if trainable == total
                                        else "random, in part frozen: the result means little"),
        "parameters": {"trainable": trainable, "total": total},
        "network": described,
    }


def describe_start(machine: MachineConfig, compute: Compute, *, first_update: int) -> dict[str, Any]:
    """What may differ from start to start: date, program, libraries, machine and its settings."""
    return {**describe_machine(compute, first_update=first_update),
            "machine": {name: str(value) if isinstance(value, Path) else value
                        for name, value in vars(machine).items()}}


def describe_machine(compute: Compute, *, first_update: int) -> dict[str, Any]:
    """Date, program, libraries, processors."""
    device = compute.device
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "first_update": first_update,
        "program": program(),
        "git": git_revision(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": compute.world_size,
        "threads": torch.get_num_threads(),
    }


def record_start(directory: RunDirectory, about_run: Mapping[str, Any], start: Mapping[str, Any]) -> None:
    """Writes `environment.json`, with a further start where there is one already.

    Raises:
        RunDirectoryError: it is there and no JSON.
    """
    earlier = (directory.read_json(directory.environment_file)["starts"] if directory.environment_file.is_file()
               else [])
    write_whole(directory.environment_file,
                json.dumps({**about_run, "starts": [*earlier, dict(start)]}, indent=2).encode())


def git_revision() -> dict[str, Any] | None:
    """Commit of the source tree that the program runs from, and whether files in it differ; None outside of one."""
    here = Path(__file__).resolve()
    try:
        # A virtual environment inside somebody's clone is not that clone's program.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return {"revision": _git(here.parent, "rev-parse", "HEAD"),
                "changed": bool(_git(here.parent, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.processor())
