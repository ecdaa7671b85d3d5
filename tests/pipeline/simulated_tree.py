"""One tiny simulated benchmark for all tests that need a tree of data sets. About 50 recordings: make it once, read it.

Use it by importing the fixture into a test module:

    from tests.pipeline.simulated_tree import simulated_tree  # noqa: F401  (a fixture)

Nobody may change the tree: copy it first.
"""

import pytest

from pipeline.simulated_benchmark import make_benchmark, plan_benchmark

#: A fixture that several modules import would run once for each of them; this is made once a session.
_made = []


@pytest.fixture(scope="session")
def simulated_tree(tmp_path_factory):
    """Data root of a simulated benchmark of size `tiny`, seed 0; its lists are in `lists` below it."""
    if not _made:
        root = tmp_path_factory.mktemp("simulated") / "tree"
        make_benchmark(root, plan_benchmark("tiny"), jobs=2)
        _made.append(root)
    return _made[0]
