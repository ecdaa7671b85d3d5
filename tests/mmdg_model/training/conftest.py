"""One small tree of all four data sets, made once, and copies of it that a test may damage."""

import shutil

import pytest

from tests.mmdg_model.training.trees import small_tree


@pytest.fixture(scope="session")
def whole_tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole_tree")
    small_tree(root)
    return root


@pytest.fixture
def tree(whole_tree, tmp_path):
    return shutil.copytree(whole_tree, tmp_path / "tree")
