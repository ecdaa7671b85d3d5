"""`FabricCompute`: device, precision and process group of a run by Lightning Fabric, which only this module imports.

Fabric starts the processes and opens their group, on one machine by itself and on several by `torchrun` or a cluster's
launcher. The network is never wrapped: methods join their gradients themselves, because ReGrad is not linear and must
see the joined ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from mmdg_model.training.compute import TrainingDiverged, require_finite_gradients
from mmdg_model.training.run_config import MachineConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class ComputeError(RuntimeError):
    """The machine cannot run as it was asked to; the message names the setting and the remedy."""


def launch(machine: MachineConfig, precision: str) -> FabricCompute:
    """Starts this machine's processes, where there are to be several, and opens the process group.

    With several devices, Fabric runs the program's own command line again in each further process: call this early,
    and let all that comes before it be the same in each. Under `torchrun` the launcher's numbers count instead of
    `devices` and `nodes`.

    Args:
        machine: see `MachineConfig`.
        precision: one of `run_config.PRECISIONS`; `16-mixed` scales losses dynamically.

    Raises:
        ImportError: Lightning Fabric is not installed.
        ComputeError: no GPU where one was asked for, or fewer than asked for.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision, Precision
    except ImportError as error:
        raise ImportError("training needs lightning-fabric; install mmdg-live[train]") from error
    kind = _device_type(machine.accelerator)
    devices, nodes = _launched_from_outside() or (machine.devices, machine.nodes)
    if kind == "cuda":
        if devices > torch.cuda.device_count():
            raise ComputeError(f"devices is {devices}, but this machine has {torch.cuda.device_count()} GPUs")
        if machine.deterministic:
            _only_deterministic_kernels()
    # Fabric itself would quietly train in bfloat16 where float16 is asked for on a CPU.
    plugin = (Precision() if precision == "32-true"
              else MixedPrecision("16-mixed" if precision == "16-mixed" else "bf16-mixed", device=kind))
    fabric = Fabric(accelerator=kind, devices=devices, num_nodes=nodes, plugins=plugin,
                    strategy="ddp" if devices * nodes > 1 else "auto")
    fabric.launch()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    return FabricCompute(fabric)


def _device_type(accelerator: str) -> str:
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ComputeError("accelerator is 'cuda', but torch sees no GPU; check the driver with nvidia-smi and that "
                           "torch is built for CUDA, or choose cpu")
    return accelerator


def _launched_from_outside() -> tuple[int, int] | None:
    """Processes a machine and machines, as `torchrun` states them."""
    if not distributed.is_torchelastic_launched():
        return None
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return local, world // local


def _only_deterministic_kernels() -> None:
    # Read by cuBLAS when its first handle is made: without it matrix products may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # it is for finding reads of unset memory, and takes time
    torch.backends.cudnn.benchmark = False


def is_first_process() -> bool:
    """Whether this process is, or will be, the one that writes and talks, as launchers say in the environment."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


class FabricCompute:
    """Implements `compute.Compute` around a launched `Fabric`.

    Under `16-mixed` a step whose gradients overflowed is left out in all processes alike, and the scale halves; after
    2,000 good steps it doubles. The scale changes between steps only, however many optimisers a step has.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        precision: Any = fabric.strategy.precision
        self._scaler: torch.amp.GradScaler | None = getattr(precision, "scaler", None)
        self._scale_is_due = False
        self._known_scale: float | None = None
        if self._scaler is not None:
            self._scaler.scale(torch.zeros((), device=self.device))  # it makes its scale at the first use

    @property
    def device(self) -> torch.device:
        return self._fabric.device

    @property
    def rank(self) -> int:
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        return self._fabric.world_size

    def autocast(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = self._fabric.autocast()
        return context

    @property
    def loss_scale(self) -> float:
        if self._scaler is None:
            return 1.0
        self._settle_scale()
        if self._known_scale is None:  # asked for with every batch, and each answer waits for the GPU
            self._known_scale = float(self._scaler.get_scale())
        return self._known_scale

    def apply(self, optimizer: torch.optim.Optimizer) -> bool:
        finite = self._gradients_are_finite(optimizer)
        if self._scaler is None:
            if not finite:
                require_finite_gradients(optimizer)
                raise TrainingDiverged("a gradient of another process is not finite; lower the learning rate")
            optimizer.step()
            return True
        if not finite:
            _poison(optimizer)  # so that the scaler of every process sees what one process saw
        self._scaler.unscale_(optimizer)
        self._scaler.step(optimizer)
        self._scale_is_due = True
        return finite

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it: the loss scale and how long it has held; empty without one."""
        if self._scaler is None:
            return {}
        self._settle_scale()
        return dict(self._scaler.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        if self._scaler is not None:
            self._scaler.load_state_dict(dict(state))
            self._known_scale = None
            self._scaler.scale(torch.zeros((), device=self.device))

    def close(self) -> None:
        """Leaves the process group."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()

    def _settle_scale(self) -> None:
        # Not in `apply`: a step's second optimiser must be unscaled by what its gradients were scaled by.
        if self._scaler is not None and self._scale_is_due:
            self._scaler.update()
            self._scale_is_due = False
            self._known_scale = None

    def _gradients_are_finite(self, optimizer: torch.optim.Optimizer) -> bool:
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]
                     if parameter.grad is not None]
        largest = torch.nn.utils.get_total_norm(gradients, math.inf) if gradients else torch.zeros(())
        finite = torch.isfinite(largest).to(device=self.device, dtype=torch.int32)
        if self.world_size > 1:
            distributed.all_reduce(finite, op=distributed.ReduceOp.MIN)
        return bool(finite)


def _poison(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.fill_(math.inf)
                return
