"""Faults: one thing of the swarm is broken on purpose, to be found, named and mended.

`stage` stands up a bench of small services, `examine` asks all its checks, `inject` breaks something,
`heal` mends it. What is injected is remembered in the swarm itself, in a config object that holds the
commands which undo it: so `heal` restores from any process, and more than once does no harm.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit import swarm
from labkit.errors import UnknownNameError, UsageError
from labkit.faults.catalogue import COMMENT, FAULTS, Fault, Step
from labkit.faults.testbed import (
    CHECKS,
    LABEL,
    SERVICES,
    Bench,
    Check,
    examine,
    find,
    labels,
    restore,
    stage,
    wait_until_green,
)

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab
    from labkit.variants import Variant

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

_RECORD = "labkit-fault"
_SHOWN_SECONDS = 120.0

# Lab 10: which faults a learner may be given, case by case.
CASES = (
    ("stale-fdb", "esp-dropped", "large-vxlan-dropped"),
    ("nat-flushed", "ingress-removed", "localhost-is-ipv6", "ipvs-timeout"),
    ("addresses-used-up", "health-needs-own-name", "wrong-port"),
)


@dataclass(frozen=True)
class Case:
    """A fault that was injected, without its name: it only tells whether a name is the right one."""

    seal: str

    def is_called(self, name: object) -> bool:
        """Whether the fault has this name."""
        return _seal(str(name).strip()) == self.seal


@dataclass(frozen=True)
class Injected:
    """What the swarm remembers of an injected fault."""

    fault: str
    secret: bool
    undo: list[dict[str, Any]]  # node, netns, argv; the first is to be run first


def of(name: str) -> Fault:
    """Return a fault by its id; raises UnknownNameError, with what may have been meant."""
    if name in FAULTS:
        return FAULTS[name]
    near = difflib.get_close_matches(name, FAULTS, n=2, cutoff=0.4)
    raise UnknownNameError("fault", name, FAULTS, hint=f"try {' or '.join(near)}" if near else "")


def of_case(you: Variant, number: int) -> Fault:
    """Return the fault that is a learner's case of this number, from 1."""
    choices = _choices(number)
    digest = hashlib.sha256(f"labkit case {number} of {you.learner}".encode()).digest()
    return FAULTS[choices[digest[0] % len(choices)]]


def _choices(number: int) -> tuple[str, ...]:
    if not 1 <= number <= len(CASES):
        raise UsageError(f"there are cases 1 to {len(CASES)}, and {number} was asked for")
    return CASES[number - 1]


def suspects(number: int) -> pd.DataFrame:
    """What a case of this number may be: a row a fault.

    fault      str
    title      str     what is broken
    symptom    str     what people notice of it
    """
    import pandas as pd

    rows = [FAULTS[name] for name in _choices(number)]
    return pd.DataFrame([{"fault": f.id, "title": f.title, "symptom": f.symptom} for f in rows])


def signatures() -> pd.DataFrame:
    """Which checks each fault turns red: a row a fault and check.

    fault      str
    title      str     what is broken
    check      str
    red        bool
    either     bool    it may turn red or not: that differs with the version of Docker, and with time
    """
    import pandas as pd

    rows = [
        {
            "fault": fault.id,
            "title": fault.title,
            "check": check,
            "red": check in fault.red,
            "either": check in fault.either,
        }
        for fault in FAULTS.values()
        for check in CHECKS
    ]
    return pd.DataFrame(rows)


def injected(lab: Lab) -> Injected | None:
    """Return what is injected now, None where nothing is."""
    for row in lab.manager.docker.api.configs(filters={"name": _RECORD}):
        if row["Spec"]["Name"] == _RECORD:
            return Injected(**json.loads(base64.b64decode(row["Spec"]["Data"])))
    return None


def inject(lab: Lab, name: str, *, secret: bool = False) -> Case:
    """Break one thing, and wait until its evidence is there, its checks are red, and no others are.

    Stages the bench where it does not stand. What undoes it is written into the swarm before anything
    is changed. Raises UnknownNameError, UsageError where a fault is in already, WaitTimeout where
    nothing comes of it.
    """
    fault = of(name)
    if now := injected(lab):
        what = "a secret fault" if now.secret else f"the fault {now.fault!r}"
        raise UsageError(
            f"{what} is injected already, and there is one at a time",
            hint=f"labkit fault heal --lab {lab.name}",
        )
    if not labels(lab):
        stage(lab)
    bench = find(lab)
    steps = fault.steps(bench)
    _remember(lab, fault, secret, steps)
    try:
        for step in steps:
            if step.do:
                step.place.run(step.do).check()
        _wait_for_evidence(bench, fault, secret)
    except BaseException:
        heal(lab)
        raise
    return Case(_seal(fault.id))


def inject_any(lab: Lab) -> Case:
    """Break something, nobody knows what."""
    return inject(lab, random.choice(list(FAULTS)), secret=True)


def inject_case(lab: Lab, you: Variant, number: int) -> Case:
    """Break what is the learner's own case of this number, without a word on what it is.

    The same case twice is one case, so that a cell may run twice.
    """
    fault = of_case(you, number)
    now = injected(lab)
    if now and now.secret and now.fault == fault.id:
        return Case(_seal(fault.id))
    return inject(lab, fault.id, secret=True)


def heal(lab: Lab, *, look: str = "healed") -> pd.DataFrame | None:
    """Undo what is injected, if anything is, and wait until every check is green.

    Returns that look at the checks, as `examine` does; None where no bench stands. Raises WaitTimeout
    where a check stays red.
    """
    now = injected(lab)
    for step in now.undo if now else ():
        place = swarm.Place(lab.node(step["node"]), step["node"], netns=step["netns"])
        place.run(step["argv"])  # fails where it was mended by hand; the checks have the last word
    seen = None
    if stands := labels(lab):
        if set(SERVICES) - set(stands):
            restore(lab, int(next(iter(stands.values()))[LABEL]))
        if now and (settle := FAULTS[now.fault].settle):
            settle(lab)
        seen = wait_until_green(lab, look=look)
    if now:
        lab.manager.docker.api.remove_config(_RECORD)
    return seen


def _seal(name: str) -> str:
    return hashlib.sha256(f"labkit fault {name}".encode()).hexdigest()[:12]


def _remember(lab: Lab, fault: Fault, secret: bool, steps: list[Step]) -> None:
    undo = [
        {"node": step.place.node.name, "netns": step.place.netns, "argv": step.undo}
        for step in reversed(steps)
        if step.undo
    ]
    record = Injected(fault.id, secret, undo)
    lab.manager.docker.api.create_config(_RECORD, json.dumps(vars(record)).encode())


def _wait_for_evidence(bench: Bench, fault: Fault, secret: bool) -> None:
    def look() -> tuple[bool, str]:
        seen = fault.evidence(bench)
        if not fault.shows(seen):
            return False, "not told" if secret else "\n".join(map(str, seen))
        # Not all follows at once: the evidence may be there before the last check is red.
        checks = examine(bench.lab)
        red = set(checks[~checks["ok"]]["check"])
        told = "not told" if secret else f"red: {', '.join(sorted(red))}"
        return red - {*fault.either} == {*fault.red}, told

    bench.lab.wait_for(
        "the evidence of a secret fault" if secret else f"the evidence of {fault.id}",
        look,
        seconds=_SHOWN_SECONDS,
        every_s=0.5,
    )
