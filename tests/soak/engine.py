"""The engine goes away in the middle of a lab: a typed error in time, and the lab goes on after it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from labkit import swarm
from labkit.errors import LabkitError
from labkit.progress import Bars
from tests.soak.home import Home
from tests.soak.results import Part

LAB = "soak-engine"
# Seconds until a notebook's cell must have ended: a lab waits for nothing longer than 300.
_BOUND = 330.0
_IMAGE = "labkit/node:26.1"
# Fills a disk without writing to it; the last megabyte too.
_FILL = """cd /var/lib/docker
n=0
for size in 1G 64M 1M 4K; do while fallocate -l $size fill.$n; do n=$((n+1)); done; done"""
_KILL = "kill -KILL $(pidof dockerd)"
_HOG = 'python3 -c "b = [bytearray(1 << 26) for _ in range(400)]"'


@dataclass(frozen=True)
class Case:
    """One way to lose the engine."""

    name: str
    lose: Callable[[swarm.Lab], object]
    ask: Callable[[swarm.Lab], object]
    """What the notebook does then; it may work or raise, but only a LabkitError and only in time."""
    mend: tuple[str, ...]
    """The command after which the lab goes on."""


def run(home: Home, seed: int, only: str, more: bool) -> None:
    """Lose the engine in each way."""
    part = Part("engine", len(CASES), seed, more)
    for case in (case for case in CASES if only in case.name):
        problem, error, seconds = _lose(home, case)
        figures = {"ended in": error, "after": f"{seconds:.1f} s", "goes on after": f"`{case.mend[0]}`"}
        part.tried(case.name, problem, figures=figures)
    if problem := home.take_all_down():
        part.tried("what is left", problem)


def _lose(home: Home, case: Case) -> tuple[str, str, float]:
    """Return what is wrong, the error that the notebook saw, and when it saw it."""
    swarm.down(LAB)
    lab = swarm.up(LAB, engine="vm", progress=Bars()).lab
    case.lose(lab)
    began, problem, error = time.monotonic(), "", "an answer"
    try:
        case.ask(lab)
    except LabkitError as caught:
        error = f"{type(caught).__name__}"
        problem = "" if caught.hint else f"{error} names no next step: {caught}"
    except Exception as caught:
        error = f"{type(caught).__module__}.{type(caught).__name__}"
        problem = f"a raw error: {error}: {str(caught)[:200]}"
    seconds = time.monotonic() - began
    if seconds > _BOUND:
        problem = problem or f"it took {seconds:.0f} s, {_BOUND:.0f} at most"
    lab.close()
    done = home.run(*case.mend, "--lab", LAB)
    if done.code:
        problem = f"{problem}; {case.mend[0]} ended with {done.code}: {done.err.strip()[-300:]}"
    return "; ".join(filter(None, [problem, home.prove(LAB)])).strip("; "), error, seconds


def _qemu(lab: swarm.Lab) -> psutil.Process:
    assert lab.engine.pid
    return psutil.Process(lab.engine.pid)


def _later(lab: swarm.Lab, number: signal.Signals) -> None:
    """Send the machine a signal while the notebook waits for an answer."""
    threading.Timer(3.0, _qemu(lab).send_signal, [number]).start()


def _stop_daemons(lab: swarm.Lab) -> None:
    """Kill every Docker daemon of the machine, from a container that sees all its processes."""
    lab.engine.client.containers.run(
        _IMAGE,
        ["-c", "sleep 1; kill -KILL $(pidof dockerd)"],
        entrypoint="sh",
        pid_mode="host",
        privileged=True,
        network_mode="none",
        detach=True,
    )
    _qemu(lab).wait(60)


def _sleep(lab: swarm.Lab) -> object:
    return lab.node("node2").run(["sleep", "20"], timeout=60)


def _look(lab: swarm.Lab) -> object:
    return lab.node("node2").run(["ip", "addr"]).check()


def _serve(lab: swarm.Lab) -> object:
    lab.service("hello", publish="5000:3000", replicas=3)
    return lab.wait_for_answers("hello")


def _on(node: str, script: str) -> Callable[[swarm.Lab], object]:
    return lambda lab: lab.node(node).run(["sh", "-c", script], timeout=120)


_RESET = ("reset",)
_UP = ("up", "--engine", "vm")
CASES = [
    Case("killed while a command runs", lambda lab: _later(lab, signal.SIGKILL), _sleep, _UP),
    Case("killed, then a node is asked", lambda lab: _qemu(lab).kill(), _look, _UP),
    Case("killed, then a service is made", lambda lab: _qemu(lab).kill(), _serve, _RESET),
    Case("the machine stands still", lambda lab: _qemu(lab).suspend(), _serve, _RESET),
    Case("every dockerd is killed", _stop_daemons, _look, _UP),
    Case("the dockerd of a worker is killed", _on("node2", _KILL), _look, _RESET),
    Case("the dockerd of the manager is killed", _on("node1", _KILL), _serve, _RESET),
    Case("the disk is full", _on("node2", _FILL), _serve, _RESET),
    Case("the memory is short", _on("node2", _HOG), _serve, _RESET),
]
