"""Commands killed at random moments: the next `up` gives a whole swarm, `down --all` leaves nothing.

A command that was killed may also have done its work just before; then that has to be whole.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit import paths
from tests.soak.home import Home, send
from tests.soak.results import Part

LAB = "soak"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DOWN = 0.5  # how often everything is taken down and looked for after a kill
_HOST = "soak-host"
_CLASS = "class.tar.zst"
_END_SECONDS = 90.0  # for a command to end after a polite signal, on a busy machine


@dataclass
class Victim:
    """A command to be killed."""

    name: str
    argv: tuple[str, ...]
    usual: float
    """How long it takes, in seconds: the first guess, then what was seen."""
    weight: int
    before: Callable[[Home], str] = lambda _: ""
    """Brings about what the command needs; returns what is wrong with that."""
    after: Callable[[Home], str] = lambda _: ""
    """Looks at what the command writes; returns what is wrong with it."""
    home: Home | None = None
    """Where it works, if not where the labs of the soak are."""


def run(home: Home, count: int, seed: int, only: str, more: bool) -> None:
    """Kill commands of every kind, in turn by their weights, with every signal."""
    part = Part("kills", count, seed, more)
    dice = random.Random(seed + part.count)
    victims = [v for v in _victims(home) if only in v.name]
    deck: list[Victim] = []
    while part.count < count:
        if not deck:
            deck = [victim for victim in victims for _ in range(victim.weight)]
            dice.shuffle(deck)
        victim, number = deck.pop(), SIGNALS[part.count % len(SIGNALS)]
        problem, moment, came = _kill(home, victim, number, dice)
        part.tried(victim.name, problem, signal=number.name, moment=moment, ended=came)


def _kill(
    home: Home, victim: Victim, number: signal.Signals, dice: random.Random
) -> tuple[str, float, str]:
    """Kill one command; returns what is wrong afterwards, when it was killed, and how it ended."""
    place = victim.home or home
    if problem := victim.before(place):
        return f"before it: {problem}", 0.0, "not begun"
    moment = round(dice.uniform(0.0, victim.usual), 2)
    process, terminal = place.start(*victim.argv, terminal=number == signal.SIGHUP)
    began = time.monotonic()
    try:
        process.wait(moment)
        came = f"by itself, code {process.returncode}"
        victim.usual = max(1.0, time.monotonic() - began)
    except subprocess.TimeoutExpired:
        send(process, terminal, number)
        try:
            came = f"code {process.wait(_END_SECONDS)}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"it did not end in {_END_SECONDS:.0f} s after {number.name}", moment, "killed"
    problems = [victim.after(place)]
    if place is home:
        problems.append(home.prove(LAB))
    if dice.random() < _DOWN:
        problems.append(place.take_all_down())
    return "; ".join(filter(None, problems)), moment, came


def _victims(home: Home) -> list[Victim]:
    """Return the commands; those that build or need another engine work in homes of their own."""
    building, importing, docker = (
        Home(home.directory.with_name(f"{home.directory.name}-{name}"))
        for name in ("building", "importing", "docker")
    )
    report, marking = str(home.work / "report"), home.work / "marking"
    labs = ("run", "01", "--lab", LAB, "--report", report)
    on_vm = ("up", "--engine", "vm", "--lab", LAB)
    return [
        Victim("up", on_vm, 12, 10, before=_down),
        Victim("up --fresh", (*on_vm, "--fresh"), 300, 1, before=_down),
        Victim("down", ("down", "--lab", LAB), 2, 8, before=_up),
        Victim("reset", ("reset", "--lab", LAB), 12, 10, before=_up),
        Victim(
            "checkpoint save",
            ("checkpoint", "save", "kept", "--lab", LAB),
            14,
            8,
            before=_up,
            after=_look_at_checkpoint,
        ),
        Victim("run", labs, 60, 3, before=_up),
        Victim("run --replay", (*labs, "--replay", str(paths.EVIDENCE)), 20, 3),
        Victim(
            "grade",
            ("grade", str(marking), "--out", str(home.work / "marks.csv")),
            20,
            4,
            before=lambda _: _hand_in(marking),
            after=lambda _: _mark_again(home, marking),
        ),
        Victim("vm build", ("vm", "build"), 110, 1, _unbuild, _rebuild, building),
        Victim(
            "vm import",
            ("vm", "import", str(home.work / _CLASS)),
            30,
            1,
            lambda importing: _unimport(home, importing),
            lambda importing: _import_again(home, importing),
            importing,
        ),
        Victim(
            "up --engine docker",
            ("up", "--engine", "docker", "--lab", LAB, "--nodes", "2"),
            120,
            1,
            lambda docker: _point_at_a_daemon(home, docker),
            _remake_on_daemon,
            docker,
        ),
    ]


def _up(home: Home) -> str:
    return home.prove(LAB)


def _down(home: Home) -> str:
    done = home.run("down", "--lab", LAB)
    return done.err if done.code else ""


def _look_at_checkpoint(home: Home) -> str:
    """A checkpoint is there and can be restored, or it is not there."""
    listed = home.run("checkpoint", "list", "--lab", LAB, "--json")
    if listed.code:
        return f"checkpoint list ended with {listed.code}: {listed.err.strip()[-300:]}"
    if not json.loads(listed.out):
        return ""
    for verb in ("restore", "remove"):
        done = home.run("checkpoint", verb, "kept", "--lab", LAB)
        if done.code:
            return f"checkpoint {verb} ended with {done.code}: {done.err.strip()[-300:]}"
    return ""


# --- marking --------------------------------------------------------------------------------------


def _hand_in(marking: Path) -> str:
    """Lay out four submissions that were never touched, and no marks."""
    for old in marking.parent.glob("marks*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    notebook = sorted(paths.RELEASE.glob("01_*.ipynb"))[0]
    for student in ("ann", "ben", "cyd", "dan"):
        (marking / student).mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook, marking / student)
    return ""


def _mark_again(home: Home, marking: Path) -> str:
    """The next `grade` marks every submission, whatever the killed one had done."""
    done = home.run("grade", str(marking), "--out", str(home.work / "marks.csv"))
    if done.code:
        return f"grade ended with {done.code}: {done.err.strip()[-300:]}"
    rows = (home.work / "marks.csv").read_text().splitlines()
    return "" if len(rows) == 5 else f"grade wrote {len(rows) - 1} rows of 4"


# --- building and importing -----------------------------------------------------------------------


def _unbuild(home: Home) -> str:
    """Leave nothing of the machine, so that the build begins at its beginning."""
    home.borrow(paths.cache(), "*.tar")
    for built in (*home.cache.glob("machine-*"), *home.cache.glob("nodes-*")):
        shutil.rmtree(built)
    return ""


def _rebuild(home: Home) -> str:
    """What a killed build has left is nothing or whole, and the next one comes to its end."""
    problems = [home.take_all_down(), _broken_disks(home)]
    done = home.run("vm", "build")
    if done.code:
        problems.append(f"vm build ended with {done.code}: {done.err.strip()[-300:]}")
    return "; ".join(filter(None, [*problems, _broken_disks(home)]))


def _broken_disks(home: Home) -> str:
    for disk in home.cache.glob("*/disk.qcow2"):
        done = subprocess.run(["qemu-img", "check", "-q", str(disk)], capture_output=True, check=False)
        if done.returncode:
            return f"{disk.parent.name}/{disk.name} is broken: {done.stderr.decode()[-200:]}"
    return ""


def _unimport(exporting: Home, importing: Home) -> str:
    """Leave nothing of what was imported; the file is exported where it is missing."""
    shutil.rmtree(importing.cache)
    importing.cache.mkdir()
    file = exporting.work / _CLASS
    if file.exists():
        return ""
    done = exporting.run("vm", "export", str(file))
    return done.err if done.code else ""


def _import_again(exporting: Home, importing: Home) -> str:
    """The next import comes to its end, and a swarm is restored out of it."""
    done = importing.run("vm", "import", str(exporting.work / _CLASS))
    if done.code:
        return f"vm import ended with {done.code}: {done.err.strip()[-300:]}"
    return importing.prove("imported") or importing.take_all_down()


# --- the engine `docker` --------------------------------------------------------------------------


def _point_at_a_daemon(host: Home, home: Home) -> str:
    """Have a lab's own machine as the Docker engine of a second home; nothing of a lab is on it."""
    if problem := host.prove(_HOST):
        return problem
    told = host.run("env", "--lab", _HOST, "--json")
    home.env.update(json.loads(told.out))
    return home.take_all_down()


def _remake_on_daemon(home: Home) -> str:
    """A swarm can be made there, and nothing of it is left afterwards."""
    before = "" if home.run("down", "--all").code == 0 else "down --all failed"
    with_ids = _on_daemon(home)
    return (
        before
        or home.prove(LAB, nodes=2, engine="docker")
        or home.take_all_down()
        or ("" if with_ids == _on_daemon(home) else "containers, networks or volumes are left")
    )


def _on_daemon(home: Home) -> list[str]:
    """List the containers, networks and volumes of the daemon."""
    rows = []
    for what in ("container", "network", "volume"):
        argv = ["docker", what, "ls", "-q", *(["-a"] if what == "container" else [])]
        done = subprocess.run(argv, env=home.env, capture_output=True, text=True, check=True)
        rows += sorted(f"{what} {line}" for line in done.stdout.split())
    return rows
