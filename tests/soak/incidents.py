"""Every fault, in rounds, and on every Docker version: known by its signature, mended by its remedy.

Each is looked at by a diagnosis too, which is not told of it; mended, the swarm has no finding.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from labkit import diagnosis, faults, swarm
from labkit.engines import DEFAULT_DOCKER, versions
from labkit.errors import LabkitError
from labkit.faults import health
from tests.soak.home import Home
from tests.soak.results import Part

LABS = ("soak-faults-1", "soak-faults-2")  # two side by side: one alone leaves a processor idle
HEALTHY = 10  # looks at a swarm that is well
_NAMED_S = 60.0  # until a diagnosis says what is wrong: a health check has to fail first, say

Try = tuple[str, str]
"""A Docker version and a fault."""


@dataclass
class Tries:
    """What is wanted of a part, and what was tried."""

    part: Part
    left: Counter[str]
    writing: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, name: str, wanted: Sequence[str], seed: int, more: bool) -> Tries:
        """Begin a part, or go on with it: what has held in an earlier run is not tried again."""
        part = Part(name, len(wanted), seed, more)
        held = {what: kind["survived"] for what, kind in part.kinds().items()}
        return cls(part, Counter(wanted) - Counter(held))

    def wants(self, what: str) -> bool:
        """Whether so many tries of it were not made yet."""
        return self.left[what] > 0

    def tried(self, what: str, problem: str, seconds: float) -> None:
        """Note a try that was wanted, or one that did not hold."""
        with self.writing:
            if self.wants(what) or problem:
                self.left[what] -= 1
                self.part.tried(what, problem, seconds=round(seconds, 1))


def run(home: Home, rounds: int, seed: int, more: bool) -> None:
    """Inject, look at and mend each fault once on each version, then in more rounds on one."""
    once = [(docker, fault) for docker in versions.releases() for fault in faults.FAULTS]
    every = once + [(DEFAULT_DOCKER, fault) for fault in faults.FAULTS] * (rounds - 1)
    mended = Tries.of("faults", [_told(one) for one in every], seed, more)
    named = Tries.of(
        "diagnosis", [*map(_told, once), *[_healthy(DEFAULT_DOCKER)] * HEALTHY], seed, more
    )
    left: list[Try] = []
    for one in dict.fromkeys(every):
        left += [one] * max(mended.left[_told(one)], named.left[_told(one)])
    left.sort(key=lambda one: one[0])  # a version after the other: each change is a swarm made anew

    def worker(at: int) -> None:
        _try_all(home, LABS[at], left[at :: len(LABS)], mended, named)

    with ThreadPoolExecutor(len(LABS)) as pool:
        for done in [pool.submit(worker, at) for at in range(len(LABS))]:
            done.result()
    if problem := home.take_all_down():
        mended.tried("what is left", problem, 0.0)


def _told(one: Try) -> str:
    docker, fault = one
    return f"{fault}, Docker {docker}"


def _healthy(docker: str) -> str:
    return f"a healthy swarm, Docker {docker}"


def _try_all(home: Home, lab: str, left: Sequence[Try], mended: Tries, named: Tries) -> None:
    here = ""
    for docker, fault in left:
        what = _told((docker, fault))
        began = time.monotonic()
        problem = "" if docker == here else _up(home, lab, docker)
        here = docker
        told = ""
        if not problem:
            try:
                problem, told = _inject_and_mend(lab, fault, named.wants(what))
                if named.wants(_healthy(docker)):
                    began_look = time.monotonic()
                    alarm = _findings(lab)
                    named.tried(_healthy(docker), alarm, time.monotonic() - began_look)
            except LabkitError as failed:
                problem = f"{type(failed).__name__}: {failed}"[:400]
        seconds = time.monotonic() - began
        mended.tried(what, problem, seconds)
        if not problem:
            named.tried(what, told, seconds)
        if problem:
            here = ""  # the next one gets a fresh swarm


def _up(home: Home, lab: str, docker: str) -> str:
    home.run("down", "--lab", lab)
    up = home.run("up", "--engine", "vm", "--lab", lab, "--docker", docker)
    return up.err[-400:] if up.code else ""


def _inject_and_mend(name: str, fault: str, diagnosed: bool) -> tuple[str, str]:
    """Break and mend one thing; returns what was not as it should be, and what was not named.

    Each is what `labkit fault inject`, `check`, `diagnose` and `fault heal` do, in one process: a try
    is seconds shorter.
    """
    told = ""
    with contextlib.closing(swarm.get(name)) as lab:
        faults.inject(lab, fault)
        found = health.red_checks(lab)
        if diagnosed:
            told = _not_named(lab, fault)
        faults.heal(lab)
    fitting = [known for known, other in faults.FAULTS.items() if other.fits(found)]
    return "" if fitting == [fault] else f"fits {fitting or 'none'}: {found}", told


def _not_named(lab: swarm.Lab, fault: str) -> str:
    """Return what a diagnosis says, "" where it names this fault and nothing else."""
    deadline = time.monotonic() + _NAMED_S
    while True:
        found = diagnosis.findings(lab)
        if {finding.fault for finding in found} == {fault}:
            return ""
        if time.monotonic() > deadline:
            return f"names {[(finding.fault, finding.what) for finding in found]}"


def _findings(name: str) -> str:
    """Return the findings of a swarm that is well: a false alarm each."""
    with contextlib.closing(swarm.get(name)) as lab:
        return "; ".join(finding.what for finding in diagnosis.findings(lab))
