"""Every fault, in rounds, and on every Docker version: known by its signature, mended by its remedy."""

from __future__ import annotations

import contextlib
import time

from labkit import faults, swarm
from labkit.engines import DEFAULT_DOCKER, versions
from labkit.errors import LabkitError
from labkit.faults import health
from tests.soak.home import Home
from tests.soak.results import Part

LAB = "soak-faults"


def run(home: Home, rounds: int, seed: int, more: bool) -> None:
    """Inject, look at and mend each fault once on each version, then in more rounds on one."""
    once = [(docker, fault) for docker in versions.releases() for fault in faults.FAULTS]
    every = once + [(DEFAULT_DOCKER, fault) for fault in faults.FAULTS] * (rounds - 1)
    part = Part("faults", len(every), seed, more)
    here = ""
    for docker, fault in every[part.count :]:
        began = time.monotonic()
        problem = "" if docker == here else _up(home, docker)
        here = docker
        problem = problem or _inject_and_mend(fault)
        if problem:
            here = ""  # the next one gets a fresh swarm
        seconds = round(time.monotonic() - began, 1)
        part.tried(f"{fault}, Docker {docker}", problem, seconds=seconds)
    if problem := home.take_all_down():
        part.tried("what is left", problem)


def _up(home: Home, docker: str) -> str:
    home.run("down", "--lab", LAB)
    up = home.run("up", "--engine", "vm", "--lab", LAB, "--docker", docker)
    return up.err[-400:] if up.code else ""


def _inject_and_mend(fault: str) -> str:
    """Break and mend one thing; returns what was not as it should be.

    Each is what `labkit fault inject`, `check` and `heal` do, in one process: a try is seconds shorter.
    """
    try:
        with contextlib.closing(swarm.get(LAB)) as lab:
            faults.inject(lab, fault)
            found = health.red_checks(lab)
            faults.heal(lab)
    except LabkitError as problem:
        return f"{type(problem).__name__}: {problem}"[:400]
    fitting = [name for name, other in faults.FAULTS.items() if other.fits(found)]
    return "" if fitting == [fault] else f"fits {fitting or 'none'}: {found}"
