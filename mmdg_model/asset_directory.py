"""Where files that set-up makes or fetches are kept: the test checkpoint, the detector's model."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

#: Raise when `test_checkpoint` makes other weights, or a checkpoint states other keys: no older cached file is used.
TEST_CHECKPOINT_RECIPE = 2


def asset_directory() -> Path:
    """`$MMDG_ASSETS` if set, else `mmdg-live` in the user's cache directory (`$XDG_CACHE_HOME` or `~/.cache`).

    The directory need not exist yet.
    """
    if chosen := os.environ.get("MMDG_ASSETS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmdg-live"


def test_checkpoint_path() -> Path:
    """Where the tiny test checkpoint for this version of torch is, or will be. Does not load torch."""
    version = importlib.metadata.version("torch").split("+")[0]
    return asset_directory() / f"test-checkpoint-tiny-recipe{TEST_CHECKPOINT_RECIPE}-torch{version}.safetensors"


# pytest would take a function of this name for a test wherever it is imported.
test_checkpoint_path.__test__ = False  # type: ignore[attr-defined]
