"""Hangs up when nobody has asked anything for a while.

Who is connected to an embedded machine may be waiting for an answer, for all that the machine's proxy
can see, and while somebody waits it is not paused soon (engines/vm/proxy.py). So the kit does not stay
connected for nothing: the next request connects again, in milliseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response, Session

SECONDS = 60.0


class Silence:
    """Calls `hang_up`, in a thread of its own, when it has been quiet for a minute."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up
        self._timer: threading.Timer | None = None
        self._last = 0.0
        self._lock = threading.Lock()

    def broken(self) -> None:
        """Note that something was said just now."""
        with self._lock:
            self._last = time.monotonic()
            if self._timer is None:
                self._wait(SECONDS)

    def end(self) -> None:
        """Hang up no more, until something is said again."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
                self._timer = None

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.name = "labkit silence"
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            if self._timer is None:  # it was ended just now
                return
            left = self._last + SECONDS - time.monotonic()
            if left > 0:
                self._wait(left)
                return
            self._timer = None
        self._hang_up()


def hang_up_after_silence(session: Session) -> None:
    """Let a session of requests, a docker client's say, close the connections that it keeps in store.

    While a request is under way none is closed: one that is about to take a connection would find that
    there is no store any more.
    """
    send, close = session.send, session.close
    gate, under_way = threading.Lock(), 0

    def hang_up() -> None:
        with gate:
            if not under_way:
                close()

    silence = Silence(hang_up)

    def count(change: int) -> None:
        nonlocal under_way
        with gate:
            under_way += change
        silence.broken()

    def sending(*args: Any, **kwargs: Any) -> Response:
        count(+1)
        try:
            return send(*args, **kwargs)
        finally:
            count(-1)

    def closing() -> None:
        silence.end()
        close()

    session.send, session.close = sending, closing  # type: ignore[method-assign]
