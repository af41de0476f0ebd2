"""What experiments ask with: curl and ping, and the columns that every probe's row has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from labkit import swarm

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Lab, Place, Task

TASK_PORT = 3000  # where the app listens in its container
TIMEOUT_S = 5.0  # long beside an answer, also under emulation
SIDE_BY_SIDE = 6  # probes at a time: more than that, and an emulated node is late with its answers

T = TypeVar("T")

_LOOKS = 12  # at most so many readings of counters, until two agree
# IPVS adds up its figures only every two seconds (Linux, net/netfilter/ipvs/ip_vs_est.c): readings that
# lie closer together agree on what is not true any more.
_SUMMED_UP_S = 2.5


def at_rest(lab: Lab, look: Callable[[], T]) -> T:
    """Read counters until two readings agree that lie apart by more than IPVS is late."""
    now = look()
    for _ in range(_LOOKS):
        last = now
        lab.pause(_SUMMED_UP_S)
        now = look()
        if now == last:
            break
    return now


def place_of(source: Task | Place) -> Place:
    """Return the place that a source's commands run in: of a task, its container."""
    return source if isinstance(source, swarm.Place) else source.place


def curl(url: str, timeout_s: float) -> list[str]:
    """Return the argv of a curl that gives up after so many seconds."""
    return ["curl", "-sS", "-m", f"{timeout_s:g}", url]


def ping(address: str, timeout_s: float) -> list[str]:
    """Return the argv of one ping that waits so many seconds for its answer."""
    return ["ping", "-n", "-c", "1", "-W", f"{timeout_s:g}", address]


def probe(capture: Capture) -> dict[str, Any]:
    """The columns that every probe's row has."""
    tool = capture.argv[0]
    return {
        "argv": capture.command,
        "code": capture.code,
        "timed_out": capture.timed_out,
        "reached": capture.ok,
        "seconds": round(capture.seconds, 3),
        "answer": capture.text.strip() if tool == "curl" and capture.ok else None,
        "stderr": capture.stderr.strip(),
    }
