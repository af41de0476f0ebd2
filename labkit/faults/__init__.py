"""Faults: one thing of the swarm is broken on purpose, to be found and mended (lab 10).

    fault            Fault and Step: what breaks, what undoes it, how it is recognised
    testbed          the bench of four small services that faults are tried on
    health           the checks that are green on a healthy bench: `examine`
    packets, kernel_tables, balancing, services, deployments    the faults, by what they break
    catalogue        all of them by id: `FAULTS`, `of`, `signatures`
    injection        `stage`, `inject`, `heal`
    condition        what stands on a swarm, to tell what else was changed
    incidents        the incident room: `report_incident`, `close_incident`

Every call that takes a lab works on a live swarm and on a replay. What is injected is kept in the
swarm, so any process can heal it.
"""

from __future__ import annotations

from labkit.faults.catalogue import FAULTS, of, signatures
from labkit.faults.fault import Fault
from labkit.faults.health import CHECKS, Check, examine
from labkit.faults.incidents import (
    LEVELS,
    Closed,
    Incident,
    close_incident,
    of_learner,
    of_level,
    open_incident,
    report_incident,
)
from labkit.faults.injection import Injected, heal, inject, inject_any, injected, remedy, stage
from labkit.faults.packets import COMMENT
from labkit.faults.testbed import SERVICES, Bench, find

__all__ = [
    "CHECKS",
    "COMMENT",
    "FAULTS",
    "LEVELS",
    "SERVICES",
    "Bench",
    "Check",
    "Closed",
    "Fault",
    "Incident",
    "Injected",
    "close_incident",
    "examine",
    "find",
    "heal",
    "inject",
    "inject_any",
    "injected",
    "of",
    "of_learner",
    "of_level",
    "open_incident",
    "remedy",
    "report_incident",
    "signatures",
    "stage",
]
