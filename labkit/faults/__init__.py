"""Faults: one thing of the swarm is broken on purpose, to be found, named and mended (lab 10).

    fault            Fault and Step: what breaks, what undoes it, how it is recognised
    testbed          the bench of four small services that faults are tried on
    health           the checks that are green on a healthy bench: `examine`
    packets, kernel_tables, services    the faults, by what they break
    catalogue        all of them by id: `FAULTS`, `of`, `signatures`
    cases            which fault a learner is given: `of_case`, `suspects`
    injection        `stage`, `inject`, `heal`

Every call that takes a lab works on a live swarm and on a replay. What is injected is kept in the
swarm, so any process can heal it.
"""

from __future__ import annotations

from labkit.faults.cases import CASES, Case, of_case, suspects
from labkit.faults.catalogue import FAULTS, of, signatures
from labkit.faults.fault import Fault
from labkit.faults.health import CHECKS, Check, examine
from labkit.faults.injection import (
    Injected,
    heal,
    inject,
    inject_any,
    inject_case,
    injected,
    stage,
)
from labkit.faults.packets import COMMENT
from labkit.faults.testbed import SERVICES, Bench, find

__all__ = [
    "CASES",
    "CHECKS",
    "COMMENT",
    "FAULTS",
    "SERVICES",
    "Bench",
    "Case",
    "Check",
    "Fault",
    "Injected",
    "examine",
    "find",
    "heal",
    "inject",
    "inject_any",
    "inject_case",
    "injected",
    "of",
    "of_case",
    "signatures",
    "stage",
    "suspects",
]
