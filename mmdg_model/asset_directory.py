"""Where files that set-up makes or fetches are kept: the test checkpoint, the detector's model."""

from __future__ import annotations

import os
from pathlib import Path


def asset_directory() -> Path:
    """`$MMDG_ASSETS` if set, else `mmdg-live` in the user's cache directory (`$XDG_CACHE_HOME` or `~/.cache`).

    The directory need not exist yet.
    """
    if chosen := os.environ.get("MMDG_ASSETS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmdg-live"
