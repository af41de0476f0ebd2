"""What was begun comes to its end, also where Ctrl-C is pressed: what was made is known then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Clean up to the end, even where Ctrl-C is pressed once more, or the terminal is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def to_the_end(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose work has ended before an error of the body goes on; what waits is dropped."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        with undisturbed():
            pool.shutdown(cancel_futures=True)
