"""The incident room in a terminal: `labkit fault play`."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from labkit.errors import LabkitError, UsageError

if TYPE_CHECKING:
    from labkit.faults import Closed, Incident
    from labkit.swarm import Lab, Place

HELP = """\
  PLACE COMMAND …    run a command, such as: node1 docker service ls
                     PLACE is a node (node1), a task (asker.1), a task's network namespace with the
                     tools of its node (asker.1/net), or a namespace of a node: node1/ingress_sbox,
                     node1/bench-plain (an overlay), node1/lb_bench-plain (its load balancer)
  hint               the next hint of three; each costs
  done               it is mended: let the swarm judge
  give up            be told what it was; the kit undoes it
  help               this list"""

_INTRODUCTION = """\
Four services on three nodes: asker (node1) asks front (node2) and back (node3) over the overlay
bench-plain, and back over bench-secret too, which is encrypted. front is also on bench-small.
door (node2) is published at port {port} of every node. Look with as few commands as you can, mend
what is broken and change nothing else.

{commands}
"""


def play(lab: Lab, level: int) -> bool:
    """Open an incident of a level and let a person work on it; returns whether it is mended.

    Which fault it is, is left to chance. Reads lines from stdin till it is mended, given up or at its
    end. Raises UsageError where there is no such level, and what `faults.inject` raises.
    """
    from labkit import faults
    from labkit.progress import Bars

    fault = random.choice(faults.of_level(level, shared=lab.shared))
    with Bars().stage("something breaks"):
        incident = faults.open_incident(lab, fault)
    print(_INTRODUCTION.format(port=faults.find(lab).port, commands=HELP))
    print(incident, flush=True)
    for line in _lines():
        try:
            closed = _obey(incident, line)
        except LabkitError as problem:
            print(f"{problem}", flush=True)
            continue
        if closed is not None:
            print(closed, flush=True)
            if closed.mended or not closed.red:
                return closed.mended
    print(f"\nIt is broken still. To undo it: labkit fault heal --lab {lab.name}", file=sys.stderr)
    return False


def place_named(lab: Lab, word: str) -> Place:
    """Return the place that a word names, as HELP has it; raises UnknownNameError, UsageError."""
    where, slash, inside = word.partition("/")
    if where not in lab.nodes and "." in where:
        task = lab.task(where)
        if slash and inside != "net":
            raise UsageError(f"a task has no {inside!r}", hint=f"{where}/net is its network namespace")
        return task.sandbox if slash else task.place
    node = lab.node(where)
    if not slash:
        return node.place
    if inside == "ingress_sbox":
        return node.load_balancer("ingress")
    if inside.startswith("lb_"):
        return node.load_balancer(inside.removeprefix("lb_"))
    return node.overlay(inside)


def _lines() -> Iterator[str]:
    """Give the lines that a person types, or those of a file or pipe."""
    prompt = "incident> " if sys.stdin.isatty() else ""
    with contextlib.suppress(EOFError):
        while True:
            yield input(prompt).strip()


def _obey(incident: Incident, line: str) -> Closed | None:
    """Do what a line says; returns how the incident ended, where the line was to end it."""
    from labkit import faults

    if line in ("", "help", "?"):
        print(HELP if line else "", flush=True)
    elif line == "hint":
        print(incident.hint(), flush=True)
    elif line == "done":
        return faults.close_incident(incident)
    elif line == "give up":
        print(f"It was: {incident.tell()}", flush=True)
        faults.heal(incident.lab)
        return faults.close_incident(incident)
    else:
        place, _, command = line.partition(" ")
        print(place_named(incident.lab, place).run(command), flush=True)
    return None
