"""Ctrl-C and SIGTERM: a wish that a training run asks about between updates, or one and the same interruption."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields what tells whether to stop. The handlers that were there come back.

    Args:
        say: told at the first signal. The first asks to stop after the update at hand and to save; a second raises
            `KeyboardInterrupt` at once, which loses what was not saved.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("stopping after this update; once more to stop at once, which loses what was not saved")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which clusters, containers and `timeout` send, raises `KeyboardInterrupt` as Ctrl-C does. The handler
    that was there comes back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
