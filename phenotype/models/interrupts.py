"""A training that is asked to stop writes down where it was before it goes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MEANT = 1.0  # seconds after which a second signal is meant: Ctrl-C reaches a process by more than one way


class Stopped(KeyboardInterrupt):
    """A training was asked to stop by `signal` and has written a checkpoint: the same call continues it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same call continues from the last step")
        self.signal = number


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Within it SIGINT and SIGTERM only ask to stop: the function it gives returns the signal's number, 0 before.

    What was started by `multiprocessing` here is asked too. A second signal, more than a second later, acts as ever.
    Outside of the main thread signals are somebody else's: the function returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    asked, at = 0, 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked, at
        if not asked:
            asked, at = number, time.monotonic()
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, number)
        elif time.monotonic() - at > MEANT:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before = {int(number): signal.signal(number, ask) for number in SIGNALS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
