"""The life of a fault: `stage` the bench, `inject` a fault into it, `heal` the swarm.

What is injected is remembered in the swarm itself, in a config object that holds the commands which
undo it. So `heal` works from any process, and healing twice does no harm.
"""

from __future__ import annotations

import base64
import json
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labkit import swarm, variants
from labkit.engines.base import FAULT
from labkit.errors import UsageError
from labkit.faults import condition
from labkit.faults.catalogue import FAULTS, of
from labkit.faults.fault import Fault, Step
from labkit.faults.health import red_checks, wait_until_green
from labkit.faults.testbed import LABEL, SERVICES, Bench, create_missing, find, labels

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Place
    from labkit.variants import Variant

log = logging.getLogger(__name__)

_SHOWN_SECONDS = 120.0
_PORT_OFFSET = 1000  # from a learner's own port, which the labs publish on


@dataclass(frozen=True)
class Injected:
    """What the swarm remembers of an injected fault; as JSON it is the text of the config object."""

    fault: str
    secret: bool
    undo: list[dict[str, Any]]  # node, netns, argv; the first is to be run first
    before: list[str] = field(default_factory=list)
    """The lines of `condition`, before anything was broken."""


def stage(lab: Lab, you: Variant | None = None) -> Bench:
    """Create the bench, or what is missing of it, wait until every check is green, and return it.

    Its published port follows from the learner's variant: `you`, or the learner of the lab. Raises
    UsageError on fewer than three nodes, WaitTimeout where a check stays red.
    """
    create_missing(lab, (you or variants.of(lab.learner)).port + _PORT_OFFSET)
    wait_until_green(lab)
    return find(lab)


def injected(lab: Lab) -> Injected | None:
    """Return what is injected now, None where nothing is."""
    for row in lab.manager.docker.api.configs(filters={"name": FAULT}):
        if row["Spec"]["Name"] == FAULT:  # the filter takes names that only begin so, too
            return Injected(**json.loads(base64.b64decode(row["Spec"]["Data"])))
    return None


def inject(lab: Lab, name: str, *, secret: bool = False) -> None:
    """Inject a fault, and wait until its evidence is there and its checks, and no others, are red.

    Stages the bench where there is none. The undo is written into the swarm before anything is
    changed, and is run where the fault does not show in time. A `secret` fault is not named in
    messages. Raises UnknownNameError for an unknown id, UsageError where a fault is injected already
    or the lab has fewer than three nodes, CommandFailed where a step fails, SwarmError where there is
    nothing to break, WaitTimeout where the fault does not show.
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


def inject_any(lab: Lab) -> None:
    """Inject one of the faults that can be, by chance and in secret; raises what `inject` raises."""
    names = [fault.id for fault in FAULTS.values() if not (fault.of_all and lab.shared)]
    inject(lab, random.choice(names), secret=True)


def heal(lab: Lab, *, look: str = "healed") -> pd.DataFrame | None:
    """Undo what is injected, if anything is, and wait until every check is green.

    Returns the table of `examine`, under the name `look`; None where there is no bench. Raises
    WaitTimeout where a check stays red.
    """
    now = injected(lab)
    if now:
        _undo(lab, now)
    seen = None
    if found := labels(lab):
        if set(SERVICES) - set(found):
            create_missing(lab, int(next(iter(found.values()))[LABEL]))
        if now:
            settle(lab, now)
        seen = wait_until_green(lab, look=look)
    if now:
        forget(lab)
    return seen


def forget(lab: Lab) -> None:
    """Take it that nothing is injected any more; nothing is undone."""
    _note(lab, [])
    lab.manager.docker.api.remove_config(FAULT)


def remedy(lab: Lab) -> list[tuple[Place, list[str]]]:
    """Return the commands that undo what is injected, in order, each with its place.

    Raises UsageError where nothing is injected.
    """
    now = injected(lab)
    if now is None:
        raise UsageError("nothing is injected", hint="labkit fault inject --secret")
    return commands_of(lab, now)


def commands_of(lab: Lab, now: Injected) -> list[tuple[Place, list[str]]]:
    """Return the commands that undo a fault, in order, each with its place."""
    return [
        (
            swarm.Place(lab.node(step["node"]), step.get("place", step["node"]), netns=step["netns"]),
            step["argv"],
        )
        for step in now.undo
    ]


def settle(lab: Lab, now: Injected) -> None:
    """Do what is left to do after the remedy of a fault, if anything is."""
    known = FAULTS.get(now.fault)  # another version of the kit may have injected it
    if known and known.settle:
        known.settle(lab)


def _undo(lab: Lab, now: Injected) -> None:
    """Run the commands that undo a fault; one may fail where a person mended by hand before."""
    for place, argv in commands_of(lab, now):
        capture = place.run(argv)
        if not capture.ok:
            log.debug("undo on %s failed, done by hand? %s", place.label, capture.stderr.strip())


def _remember(lab: Lab, fault: Fault, secret: bool, steps: list[Step]) -> None:
    """Write into the swarm what undoes these steps, the last step first."""
    undo = [
        {
            "node": step.place.node.name,
            "place": step.place.label,
            "netns": step.place.netns,
            "argv": step.undo,
        }
        for step in reversed(steps)
        if step.undo
    ]
    record = Injected(fault.id, secret, undo, condition.of(lab))
    lab.manager.docker.api.create_config(FAULT, json.dumps(vars(record)).encode())
    _note(lab, undo)


def _note(lab: Lab, undo: list[dict[str, Any]]) -> None:
    """Tell who owns the nodes what undoes the fault: machines of somebody's own outlive the swarm."""
    if lab.engine.machines:
        named = [{**step, "node": lab.node(step["node"]).hostname} for step in undo]
        lab.engine.machines.broken(named)


def _wait_for_evidence(bench: Bench, fault: Fault, secret: bool) -> None:
    """Wait until the fault shows and its checks are red; a secret one is not named when it does not."""

    def look() -> tuple[bool, str]:
        seen = fault.evidence(bench)
        if not fault.shows(seen):
            return False, "not shown" if secret else "\n".join(map(str, seen))
        # Not all follows at once: the evidence may be there before the last check is red.
        found = red_checks(bench.lab)
        told = "; ".join(f"{check}: {words}" for check, words in found.items())
        return fault.fits(found), "not shown" if secret else f"red: {told}"

    bench.lab.wait_for(
        "the evidence of a secret fault" if secret else f"the evidence of {fault.id}",
        look,
        seconds=_SHOWN_SECONDS,
        every_s=0.5,
    )
