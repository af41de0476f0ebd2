"""Every fault, in rounds, and on every Docker version: known by its signature, mended by its remedy.

And each is looked at by a diagnosis that is not told of it; mended, the swarm has no finding.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

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
"""A Docker version, and a fault; or "" for none."""


def run(home: Home, rounds: int, seed: int, more: bool) -> None:
    """Inject, look at and mend each fault once on each version, then in more rounds on one."""
    every = _once() + [(DEFAULT_DOCKER, fault) for fault in faults.FAULTS] * (rounds - 1)
    _try_all(home, "faults", every, _inject_and_mend, seed, more)


def run_diagnosis(home: Home, seed: int, more: bool) -> None:
    """Let each fault be named once on each version, and look at swarms that are well."""
    every = _once() + [(DEFAULT_DOCKER, "")] * HEALTHY
    _try_all(home, "diagnosis", every, _name, seed, more)


def _once() -> list[Try]:
    return [(docker, fault) for docker in versions.releases() for fault in faults.FAULTS]


def _told(one: Try) -> str:
    docker, fault = one
    return f"{fault or 'a healthy swarm'}, Docker {docker}"


def _try_all(
    home: Home,
    name: str,
    wanted: Sequence[Try],
    problem_of: Callable[[swarm.Lab, str], str],
    seed: int,
    more: bool,
) -> None:
    """Make the tries of a part that have not held in an earlier run, on two swarms side by side."""
    part = Part(name, len(wanted), seed, more)
    held = {what: kind["survived"] for what, kind in part.kinds().items()}
    left = (Counter(wanted) - Counter({one: held.get(_told(one), 0) for one in wanted})).elements()
    # Each change of the version is a swarm made anew; first the one that most people have.
    waiting = sorted(left, key=lambda one: (one[0] != DEFAULT_DOCKER, one[0]))
    writing = threading.Lock()

    def worker(at: int) -> None:
        here = ""
        for docker, fault in waiting[at :: len(LABS)]:
            began = time.monotonic()
            problem = "" if docker == here else _up(home, LABS[at], docker)
            problem = problem or _problem(LABS[at], fault, problem_of)
            here = "" if problem else docker  # after a problem the next one gets a fresh swarm
            with writing:
                seconds = round(time.monotonic() - began, 1)
                part.tried(_told((docker, fault)), problem, seconds=seconds)

    with ThreadPoolExecutor(len(LABS)) as pool:
        for done in [pool.submit(worker, at) for at in range(len(LABS))]:
            done.result()
    if problem := home.take_all_down():
        part.tried("what is left", problem)


def _up(home: Home, lab: str, docker: str) -> str:
    home.run("down", "--lab", lab)
    up = home.run("up", "--engine", "vm", "--lab", lab, "--docker", docker)
    return up.err[-400:] if up.code else ""


def _problem(name: str, fault: str, problem_of: Callable[[swarm.Lab, str], str]) -> str:
    """Try one fault on a swarm; returns what was not as it should be.

    It is what commands of labkit do, in one process: a try is seconds shorter.
    """
    try:
        with contextlib.closing(swarm.get(name)) as lab:
            return problem_of(lab, fault)
    except LabkitError as problem:
        return f"{type(problem).__name__}: {problem}"[:400]


def _inject_and_mend(lab: swarm.Lab, fault: str) -> str:
    """Break and mend one thing; returns what its red checks fit, "" where that is this fault alone."""
    faults.inject(lab, fault)
    problem = _fits_another(lab, fault)
    faults.heal(lab)
    return problem


def _fits_another(lab: swarm.Lab, fault: str) -> str:
    found = health.red_checks(lab)
    fitting = [known for known, other in faults.FAULTS.items() if other.fits(found)]
    return "" if fitting == [fault] else f"fits {fitting or 'none'}: {found}"


def _name(lab: swarm.Lab, fault: str) -> str:
    """Break one thing, or nothing; returns the findings, "" where they are of this fault alone.

    Its red checks have to fit it alone, too, and then it is mended: a round of the other part.
    """
    faults.inject(lab, fault) if fault else faults.stage(lab)
    deadline = time.monotonic() + _NAMED_S
    while True:
        found = diagnosis.findings(lab)
        if {finding.fault for finding in found} == ({fault} if fault else set()):
            break
        if time.monotonic() > deadline:
            return f"names {[(finding.fault, finding.what) for finding in found]}"
    problem = _fits_another(lab, fault) if fault else ""
    faults.heal(lab)
    return problem
