"""The incident room: something is broken, and all that is known is what a user says.

An incident begins with `report_incident` and ends with `close_incident`. In between the learner looks,
narrows down and mends by hand. The swarm is the judge: every check of the bench has to be green again.
The score counts what was asked on the way, and what else is not as it was before.
"""

from __future__ import annotations

import hashlib
import html
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labkit.errors import UsageError, WaitTimeout
from labkit.evidence import notes
from labkit.faults import condition, injection
from labkit.faults.catalogue import FAULTS, of
from labkit.faults.fault import Fault
from labkit.faults.health import red_checks, wait_until_green

if TYPE_CHECKING:
    from labkit.swarm import Lab
    from labkit.variants import Variant

LEVELS = (1, 2, 3)
"""1: the docker CLI shows it; 2: a node, a name or a balancer; 3: the kernel's tables and packets."""
_PAR = {1: 8, 2: 12, 3: 16}
_JUDGED_SECONDS = 60.0  # until every check is green, after somebody says that it is mended
_EMULATED = 2  # times as long, in emulation
_HINTS = 3


@dataclass
class Incident:
    """An open incident: its level, what a user says, and the hints that were asked for."""

    lab: Lab = field(repr=False)
    level: int
    complaint: str
    asked_before: int = field(repr=False)
    hints: int = 0
    closed: Closed | None = field(default=None, repr=False)
    """How it ended, where it was mended."""

    @property
    def looks(self) -> int:
        """How many commands were run on the nodes since it began, by this process."""
        return asked(self.lab) - self.asked_before

    def hint(self) -> str:
        """Return the next hint, three in all: which checks are red, what they found, what is broken.

        A hint looks at the swarm, so behind recorded answers there is none. Raises UsageError where the
        incident is closed.
        """
        if self.lab.engine.kind == "replay":
            return "A hint looks at the swarm, and no swarm is behind recorded answers: labkit up."
        self.hints = min(self.hints + 1, _HINTS)
        notes.note("hint", {"question": f"incident_{self.level}", "step": self.hints})
        if self.hints == _HINTS:
            return self.tell()
        before = asked(self.lab)
        found = red_checks(self.lab)
        self.asked_before += asked(self.lab) - before  # the hint's own commands are no looks
        if self.hints == 1:
            return f"Of the checks of the bench these are red: {', '.join(found)}."
        return "\n".join(f"{check}: {words}" for check, words in found.items())

    def tell(self) -> str:
        """Return what is broken, the last hint; raises UsageError where the incident is closed."""
        now = injection.injected(self.lab)
        if now is None:
            raise UsageError("the incident is closed", hint="faults.report_incident(lab, you, 1)")
        return f"{of(now.fault).title}."

    def __str__(self) -> str:
        return f"Level {self.level}. A user says: {self.complaint}."

    def _repr_html_(self) -> str:
        return (
            f"<p><b>Incident, level {self.level}.</b> A user says:</p>"
            f"<blockquote>{html.escape(self.complaint)}.</blockquote>"
        )


@dataclass(frozen=True)
class Closed:
    """How an incident ended."""

    level: int
    mended: bool
    """Every check of the bench is green, and it was not `heal` that did it."""
    red: dict[str, str]  # the checks that are red still: what they found
    changes: list[str]  # what is not as it was before the incident
    looks: int  # commands between the complaint and the end
    hints: int
    cause: str = ""  # what was broken; told when it is mended
    remedy: str = ""
    commands: tuple[str, ...] = ()
    source: str = ""
    recorded: bool = False
    """Whether it was mended when it was recorded, and not now."""

    @property
    def stars(self) -> int:
        """0 to 3: one each for mended, nothing else changed, and few looks without a hint."""
        if not self.mended:
            return 0
        return 1 + (not self.changes) + (self.looks <= _PAR[self.level] and not self.hints)

    def __str__(self) -> str:
        if not self.mended:
            return (
                f"Not mended: of the checks of the bench {len(self.red)} are red. The incident goes on."
                if self.red
                else "Not mended by hand: the kit has undone it, or nothing was broken."
            )
        lines = [
            *(["Recorded: this is how it was mended then."] if self.recorded else ()),
            f"Mended. {'★' * self.stars}{'☆' * (3 - self.stars)}  looks: {self.looks} "
            f"(a practised person needs {_PAR[self.level]}), hints: {self.hints}, "
            f"changed besides: {len(self.changes)}",
            *(f"  {line}" for line in self.changes),
            f"What it was: {self.cause}.",
            f"What mends it: {self.remedy}.",
            *(f"  {line}" for line in self.commands),
            f"Where it comes from: {self.source}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def asked(lab: Lab) -> int:
    """Return how many commands this process has run on the nodes of a lab."""
    return sum(len(node.asked) for node in lab.nodes.values())


def of_level(level: int, *, shared: bool = False) -> list[Fault]:
    """Return the faults of a level; in a shared swarm, those that leave alone what others need there.

    Raises UsageError where there is no such level.
    """
    if level not in LEVELS:
        raise UsageError(
            f"there are the levels 1 to {LEVELS[-1]}, and {level!r} was asked for",
            hint="ask for level 1, the easiest",
        )
    found = [fault for fault in FAULTS.values() if fault.level == level]
    return [fault for fault in found if not (fault.of_all and shared)]


def of_learner(you: Variant, level: int, *, shared: bool = False) -> Fault:
    """Return the fault that is the learner's incident of a level; raises UsageError for no level."""
    choices = of_level(level, shared=shared)
    digest = hashlib.sha256(f"labkit incident {level} of {you.learner}".encode()).digest()
    return choices[int.from_bytes(digest[:4]) % len(choices)]


def report_incident(lab: Lab, you: Variant, level: int) -> Incident:
    """Break what is the learner's incident of this level, unseen, and return it: a user complains.

    Breaks nothing where that very incident is open, so that a cell may run twice. Raises UsageError
    where there is no such level, and what `inject` raises.
    """
    return open_incident(lab, of_learner(you, level, shared=lab.shared))


def open_incident(lab: Lab, fault: Fault) -> Incident:
    """Break this, unseen, and return the incident; raises what `inject` raises."""
    now = injection.injected(lab)
    if not (now and now.secret and now.fault == fault.id):
        injection.inject(lab, fault.id, secret=True)
    return Incident(lab, fault.level, fault.complaint, asked(lab))


def close_incident(incident: Incident) -> Closed:
    """Let the swarm judge whether an incident is over; where it is not, the incident stays open.

    Waits up to a minute for the checks of the bench: what was mended may take a moment to work.
    """
    if incident.closed:  # the cell runs again
        return incident.closed
    lab, level = incident.lab, incident.level
    looks, hints = incident.looks, incident.hints
    now = injection.injected(lab)
    if now is None:
        return Closed(level, mended=False, red={}, changes=[], looks=looks, hints=hints)
    fault = of(now.fault)
    injection.settle(lab, now)
    red = _red_after_a_while(lab)
    incident.asked_before = asked(lab) - looks  # judging is no look
    if red:
        return Closed(level, mended=False, red=red, changes=[], looks=looks, hints=hints)
    changed = condition.changes(now.before, condition.of(lab), remade=fault.remade)
    commands = tuple(
        f"{place.label} $ {shlex.join(argv)}" for place, argv in injection.commands_of(lab, now)
    )
    injection.forget(lab)
    incident.closed = Closed(
        level,
        mended=True,
        red={},
        changes=changed,
        looks=looks,
        hints=hints,
        cause=fault.title,
        remedy=fault.remedy,
        recorded=lab.engine.kind == "replay",
        commands=commands,
        source=fault.source,
    )
    return incident.closed


def _red_after_a_while(lab: Lab) -> dict[str, str]:
    """Give the bench a minute to get green; returns what is red then, by check."""
    seconds = _JUDGED_SECONDS * (_EMULATED if lab.engine.accel == "tcg" else 1)
    try:
        wait_until_green(lab, seconds=seconds)
        return {}
    except WaitTimeout:
        return red_checks(lab)
    except UsageError as problem:  # a service of the bench has no task, or is not there
        return {"bench": str(problem.args[0])}
