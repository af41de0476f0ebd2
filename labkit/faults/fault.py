"""A fault: the steps that break the swarm, the steps that undo them, and how it is recognised.

A step is one command and the command that undoes it; both are known before anything is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.faults.testbed import Bench
    from labkit.swarm import Lab, Place

SHORT_S = 2.0  # of one probe among the evidence: its failure is expected


@dataclass(frozen=True)
class Step:
    """One command that breaks something, and the one that undoes it; either may be absent."""

    place: Place
    do: list[str] | None = None
    undo: list[str] | None = None


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in real swarms, made on purpose.

    ``steps`` and ``evidence`` are given the bench as it stands. ``evidence`` runs a few commands, and
    ``shows`` says whether their results are those of this fault and of no other.
    """

    id: str
    level: int  # 1: the docker CLI shows it; 2: a node or a name; 3: the kernel's tables and packets
    title: str  # what is broken: the true cause
    complaint: str  # what a user says of it
    remedy: str  # what mends it, in words; the commands are those that undo the steps
    source: str  # the public report that it comes from, or the page
    red: tuple[str, ...]  # the checks that it turns red
    steps: Callable[[Bench], list[Step]]
    evidence: Callable[[Bench], list[Capture]]
    shows: Callable[[list[Capture]], bool]
    settle: Callable[[Lab], None] | None = None  # what is left to do after the undo steps
    either: tuple[str, ...] = ()  # the checks that may turn red or stay green
    says: Mapping[str, str] = field(default_factory=dict)
    """What a red check finds, as a regular expression, where others turn the same checks red."""
    remade: tuple[str, ...] = ()  # services that the remedy makes anew
    of_all: bool = False  # it breaks what other services of the swarm need: not in one of somebody's

    def fits(self, found: Mapping[str, str]) -> bool:
        """Whether the red checks, with what they found, are those of this fault."""
        if set(found) - {*self.either} != {*self.red}:
            return False
        return all(re.search(pattern, found[check]) for check, pattern in self.says.items())


def connected_but_silent(capture: Capture) -> bool:
    """Whether a curl with `-w %{time_connect}` had a connection and then no answer in time.

    Exit code 28 is curl's word for a time-out; the time to connect stays 0 without a connection.
    """
    return capture.code == 28 and float(capture.text or 0) > 0
