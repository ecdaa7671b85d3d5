"""Decoders answer any bytes with a value or the error that they document: a quick share of what `make fuzz` runs."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.decoders import TARGETS, DecoderFault, Target, attempt, mutated

BY_NAME = {target.name: target for target in TARGETS}
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_any_bytes_give_a_value_or_the_documented_error(name, memory_folder):
    target = BY_NAME[name]

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=QUIET)
    @given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
                     st.integers(0, 2**32).map(lambda seed: mutated(random.Random(seed), target)),
                     st.integers(0, 2**32).map(lambda seed: mutated(random.Random(seed), target))))
    def check(data):
        attempt(target, data, memory_folder)

    check()


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_target_takes_at_least_one_of_its_seeds(name, memory_folder):
    """Otherwise its mutations would only ever see the first check."""
    target = BY_NAME[name]
    assert any(attempt(target, seed, memory_folder) for seed in target.seeds())


@pytest.fixture
def memory_folder(tmp_path):
    """A folder in memory where there is one: each input is a file."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def bomb(key: str, depth: int = 28) -> bytes:
    """Aliases of aliases: a kilobyte that stands for 2**28 values."""
    lines = ["x0: &x0 [lol, lol]"] + [f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]" for i in range(1, depth)]
    return "\n".join([*lines, f"{key}: *x{depth - 1}"]).encode()


FOUND = {  # by fuzzing or by reading; each was another error, or a hang
    "a huge number of milliseconds in a decision": ("decision", b'{"expires_in_ms": 1%s}' % (b"0" * 400)),
    "a lone surrogate as nonce": ("decision", b'{"nonce": "\\ud800"}'),
    "a date that is none": ("settings", b"cameras: 2026-13-45"),
    "brackets without end": ("settings", b"[" * 20_000),
    "mappings without end": ("policy", b"{a: " * 20_000),
    "a number of too many digits": ("policy", b"deadline_ms: " + b"9" * 5_000),
    "a lone surrogate in a policy": ("policy", b'{"name": "gate", "deadline_ms": "\\ud800"}'),
    "a lone surrogate in a request": ("policy_request", b'{"required_modalities": "\\ud800"}'),
    "a text that is no UTF-8 in a key file": ("key_folder", b'{"\x99ormat": 1}'),
    "aliases of aliases as cameras": ("settings", bomb("cameras")),
    "aliases of aliases as a policy": ("settings", bomb("policy")),
    "aliases of aliases as modalities": ("policy", bomb("required_modalities")),
    "a file of settings of two megabytes": ("settings", b"#" * 2_000_000),
}


@pytest.mark.parametrize("case", sorted(FOUND))
def test_what_was_found_stays_fixed(case, memory_folder):
    name, data = FOUND[case]
    whole = data if name != "decision" else decision_with(data)
    attempt(BY_NAME[name], whole, memory_folder, memory=True)


def decision_with(change: bytes) -> bytes:
    return json.dumps(json.loads(BY_NAME["decision"].seeds()[0]) | json.loads(change)).encode()


def test_another_error_than_documented_is_a_fault(memory_folder):
    def broken(data, folder):
        raise IndexError(len(data))

    target = Target("broken", broken, (KeyError,), lambda: [b""])
    with pytest.raises(DecoderFault, match="IndexError: 2"):
        attempt(target, b"ab", memory_folder)


def test_too_much_memory_is_a_fault(memory_folder):
    target = Target("greedy", lambda data, folder: bytes(300 * 2**20), (), lambda: [b""])
    with pytest.raises(DecoderFault, match="greedy"):
        attempt(target, b"", memory_folder, memory=True)
