"""A lab rests and goes on, many times: what was in it is in it, and who asks is answered soon."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from labkit import swarm
from labkit.engines.vm import machine, qmp
from labkit.errors import LabkitError
from labkit.progress import Bars
from labkit.transport import silence
from tests.soak.home import Home
from tests.soak.results import Part

LAB = "soak-rest"
KINDS = {"paused": ("0.5", "0"), "hibernated": ("0.5", "1")}  # seconds until each of the two
_SILENCE = 0.3  # seconds until this process hangs up, in place of a minute
_SOON = 120.0


def run(home: Home, pauses: int, hibernations: int, seed: int, more: bool) -> None:
    """Let a lab be paused, and hibernated, so many times; one connection asks it all along."""
    part = Part("rest", pauses + hibernations, seed, more)
    for kind, times in (("paused", pauses), ("hibernated", hibernations)):
        done = part.kinds().get(kind, {"tried": 0})["tried"]
        if done < times:
            _rest(part, kind, range(done + 1, times + 1))
    if problem := home.take_all_down():
        part.tried("what is left", problem)


def _rest(part: Part, kind: str, numbers: range) -> None:
    swarm.down(LAB)
    silence.SECONDS = _SILENCE
    os.environ["LABKIT_PAUSE_AFTER"], os.environ["LABKIT_HIBERNATE_AFTER"] = KINDS[kind]
    lab = swarm.up(LAB, engine="vm", progress=Bars()).lab
    try:
        lab.service("kept", publish="8080:3000", replicas=2)
        lab.wait_for_answers("kept")
        times: list[float] = []
        for number in numbers:
            try:
                swarm.wait_for(f"the lab to be {kind}", _is[kind], seconds=_SOON, every_s=0.1)
                began = time.monotonic()
                problem = _as_it_was(lab, number - 1 if times else None)
                times.append(time.monotonic() - began)
                _note(lab, number)
            except LabkitError as caught:
                problem = f"{type(caught).__name__}: {caught}"
            figures = {"median until proved": f"{statistics.median(times or [0]):.2f} s"}
            part.tried(kind, problem, figures=figures)
    finally:
        lab.close()
        swarm.down(LAB)
        del os.environ["LABKIT_PAUSE_AFTER"], os.environ["LABKIT_HIBERNATE_AFTER"]


def _as_it_was(lab: swarm.Lab, noted: int | None) -> str:
    """Say what is not as it was: nodes that are not ready, the clock, what was `noted` on each node."""
    asked = lab.run_all([(node.place, ["cat", "/run/noted"]) for node in lab.nodes.values()])
    clock = lab.node("node2").run(["date", "+%s.%N"]).check()
    nodes = lab.manager.docker.api.nodes()
    ready = [row for row in nodes if row["Status"]["State"] == "ready"]
    if len(ready) != len(lab.nodes):
        return f"{len(ready)} of {len(lab.nodes)} nodes are ready"
    if abs(float(clock.stdout) - time.time()) > 2:
        return f"its clock says {clock.stdout.strip()}, and it is {time.time():.0f}"
    if noted and any(capture.stdout.strip() != str(noted) for capture in asked):
        return f"noted was {noted}, and there is {[capture.stdout for capture in asked]}"
    return ""


def _note(lab: swarm.Lab, number: int) -> None:
    """Note a number on every node, and ask the service through the mesh; raises CommandFailed."""
    for node in lab.nodes.values():
        node.run(["sh", "-c", f"echo {number} > /run/noted"]).check()
        node.run("curl -sS -m 10 http://127.0.0.1:8080").check()


def _paused() -> tuple[bool, str]:
    return not qmp.runs(machine.lab_directory(LAB)), "it runs"


def _hibernated() -> tuple[bool, str]:
    there = machine.qemus_in(machine.lab_directory(LAB))
    return not there, f"QEMU {there}"


_is: dict[str, Callable[[], tuple[bool, str]]] = {"paused": _paused, "hibernated": _hibernated}
