"""Scalars for TensorBoard by tensorboardX, which only this module imports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path


class TensorBoardLog:
    """Event files in `folder`; what an earlier start of the run wrote for updates from `first_update` on is void.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, *, first_update: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard logs need tensorboardX; install mmdg-live[train], or train with "
                              "--no-tensorboard") from error
        self._writer = SummaryWriter(str(folder), purge_step=first_update)

    def write(self, scalars: Mapping[str, float], update: int) -> None:
        """One point of each curve; numbers that do not exist are left out."""
        for name, value in scalars.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        """Writes what is held back."""
        self._writer.close()
