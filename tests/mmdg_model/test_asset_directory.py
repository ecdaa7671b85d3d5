"""Where assets go, by environment."""

from pathlib import Path

import pytest

from mmdg_model.asset_directory import asset_directory


@pytest.mark.parametrize(("environment", "expected"), [
    ({"MMDG_ASSETS": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
    ({"XDG_CACHE_HOME": "/c"}, "/c/mmdg-live"),
    ({"MMDG_ASSETS": "", "XDG_CACHE_HOME": "", "HOME": "/home/someone"}, "/home/someone/.cache/mmdg-live"),
])
def test_asset_directory(monkeypatch, environment, expected):
    for name in ("MMDG_ASSETS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert asset_directory() == Path(expected)
