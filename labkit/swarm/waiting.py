"""Waits for something to become true, and tells what was seen where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from labkit.errors import WaitTimeout

_READY_SECONDS = 300.0
_PAUSE = 0.2  # between two looks at something that has to become true


def wait_for(
    wanted: str,
    look: Callable[[], tuple[bool, str]],
    *,
    seconds: float | None = None,
    log: Callable[[], Sequence[str]] = tuple,
    hint: str = "",
    every_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Look until it is true; raises WaitTimeout with the last state seen and the last log lines.

    `look` returns whether it is true, and a word on the state. With `every_s` there is always that
    pause between two looks. What waits for a lab takes `Lab.wait_for`, which has the lab's own clock.
    """
    seconds = _READY_SECONDS if seconds is None else seconds
    began = clock()
    while True:
        looked = clock()
        done, last = look()
        if done:
            return
        if clock() - began > seconds:
            raise WaitTimeout(wanted, seconds=seconds, last=last, log=log(), hint=hint)
        # Looking costs the nodes time, under emulation much: they get twice that for themselves.
        pause(every_s or max(_PAUSE, 2 * (clock() - looked)))
