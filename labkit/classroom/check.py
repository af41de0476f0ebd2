"""The check of a participant's machine the evening before a class, and the file that it leaves.

Step by step, and no further than the first one that fails: what the machine has (`labkit doctor`), a
swarm of the check's own, its nodes, a published port, and where the engine saves swarms how long the
saved one takes. Then the swarm is taken down, whatever happened.

The file is JSON, see `labkit.classroom.returned`. It holds no secret, no name of the machine and no
home directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import __version__, doctor, engines, files, swarm, variants
from labkit.classroom.returned import FORMAT, KIND
from labkit.engines.base import Engine
from labkit.engines.ending import undisturbed
from labkit.errors import LabkitError, SwarmError, UsageError, redact
from labkit.grading.texts import visible
from labkit.progress import Progress

if TYPE_CHECKING:
    from labkit.variants import Variant

LONGEST_S = 14 * 60.0
"""What the steps may take together; the last of the fifteen minutes is for taking the swarm down."""

_ASK = "labkit doctor tells what this machine lacks; send the file in any case"
_SLOW = "labkit up, which may take as long as it needs; then labkit down, and this check once more"
_LONGEST_TEXT = 600  # characters of a message
_ADDRESS = re.compile(r"\b(tcp|ssh)://(?:[^/@\s]*@)?(?!127\.|localhost\b)[^/:\s'\"]+")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")


class _TimeUp(BaseException):
    """The check has taken too long. No Exception: what tries a thing twice must not take it for one."""


@dataclass(frozen=True)
class Step:
    """One step of the check."""

    name: str
    ok: bool
    seconds: float
    message: str
    remedy: str = ""
    """The next step for who has a step that failed; empty where there is none to take."""


def target(learner: str, out: Path | None) -> Path:
    """Return the file to write, before anything is begun; raises UsageError where it cannot be."""
    path = out or Path(f"class-check-{learner}.json")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"{path} cannot be written", hint="labkit class check --out FILE, in a folder of your own"
        )
    return path


def participant(learner: str) -> Variant:
    """Return who checks the machine; raises UsageError for an id that cannot be, or that many share."""
    you = variants.of(learner or None)
    if not learner and variants.is_shared(you):
        raise UsageError(
            f"{you.learner!r} is a login that many people share, so nobody could tell whose file it is",
            hint="labkit class check --learner ada, with your own id",
        )
    return you


def lab_of(learner: str) -> str:
    """Return the name of the check's own lab.

    It follows from the learner's id: on a Docker engine that people share, nobody's check is another's.
    """
    return f"class-check-{hashlib.sha256(learner.encode()).hexdigest()[:8]}"


def run(you: Variant, *, engine: str = "auto", progress: Progress) -> dict[str, Any]:
    """Check this machine; returns what the file holds, as `labkit.classroom.returned` describes it.

    Nothing is left of the check's lab, also where a step fails or the caller is interrupted. Raises
    UsageError and UnknownNameError for an engine that cannot be asked for, and nothing else: all that
    goes wrong is in the result.
    """
    chosen, why = engines.choose(engine)
    check = _Check(you, engine, chosen, why, progress)
    end = time.monotonic() + LONGEST_S
    try:
        for name, work in check.plan():
            if not check.do(name, work, end - time.monotonic()):
                break
    finally:
        check.take_down()
    return {
        "kind": KIND,
        "format": FORMAT,
        "kit": __version__,
        "learner": you.learner,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_machine(),
        "engine": {"kind": chosen.kind, "accel": chosen.accel(), "why": without_names(why)},
        "findings": check.findings,
        "steps": [asdict(step) for step in check.steps],
        "made_s": check.made_s,
        "restored_s": check.restored_s,
        "ready": all(step.ok for step in check.steps),
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the file; raises UsageError where that cannot be."""
    try:
        files.write_json(path, found)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be written: {problem.strerror}", hint="labkit class check --out FILE"
        ) from problem


def without_names(text: str) -> str:
    """Return a message in one line, without secrets, this machine's name and the user's folder."""
    text = _ADDRESS.sub(r"\1://…", _PASSWORD.sub("", redact(text)))
    for folder in filter(None, (os.environ.get("LABKIT_HOME"), str(Path.home()))):
        if len(folder) > 1:
            text = text.replace(folder, "~")
    for name in {socket.gethostname(), platform.node()} - {"", "localhost"}:
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "…", text)
    return visible(" ".join(text.split()), _LONGEST_TEXT)


class _Check:
    """A check under way: its steps so far, and what was measured."""

    def __init__(self, you: Variant, asked: str, engine: Engine, why: str, progress: Progress) -> None:
        self.steps: list[Step] = []
        self.findings: list[dict[str, Any]] = []
        self.made_s: float | None = None
        self.restored_s: float | None = None
        self._you, self._asked, self._engine, self._why = you, asked, engine, why
        self._progress = progress
        self._name = lab_of(you.learner)
        self._lab: swarm.Lab | None = None

    def plan(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield the steps that are to be done next, each with what does it and returns its message."""
        yield "doctor", self._examine
        yield "up", self._up
        yield "nodes", self._nodes
        yield "port", self._port
        # Only an engine that keeps states of a lab has a saved swarm to come back to.
        if self.restored_s is None and self._engine.checkpoints(self._name) is not None:
            yield "restore", self._restore

    def do(self, name: str, work: Callable[[], str], seconds: float | None) -> bool:
        """Do one step, in so many seconds at most; keeps what came of it, returns whether it is ok."""
        began = time.monotonic()
        ok, message, remedy = False, "", _ASK
        try:
            with _at_most(seconds):
                message = work()
            ok, remedy = True, ""
        except _TimeUp:
            message = f"the check was stopped in this step after {LONGEST_S / 60:.0f} minutes"
            remedy = _SLOW
        except LabkitError as problem:
            message, remedy = problem.args[0], problem.hint or _ASK
        except Exception as problem:  # whatever goes wrong, the file is there to tell it
            message = f"{type(problem).__name__}: {problem}"
        took = round(time.monotonic() - began, 2)
        self.steps.append(Step(name, ok, took, without_names(message), without_names(remedy)))
        return ok

    def take_down(self) -> None:
        """Leave nothing of the lab; Ctrl-C once more does not stop that."""
        with undisturbed():
            self._close()
            self.do("down", self._down, None)

    def _examine(self) -> str:
        with self._progress.stage("looking at this machine"):
            found = doctor.examine()["checks"]
        texts = ("detail", "remedy")
        self.findings = [{**row, **{t: without_names(row[t]) for t in texts}} for row in found]
        kind, accel = self._engine.kind, self._engine.accel()
        if refusal := self._engine.refusal():
            missing = (one.remedy for one in self._engine.examine() if not one.ok and one.remedy)
            raise SwarmError(refusal, hint=next(missing, ""))
        return f"engine {kind}{f', {accel}' if accel else ''}: {self._why}"

    def _up(self) -> str:
        swarm.down(self._name)  # what an earlier check has left that was killed
        return self._start()

    def _start(self) -> str:
        result = swarm.up(self._name, engine=self._asked, progress=self._progress)
        self._lab = result.lab
        seconds = round(result.seconds, 2)
        if result.restored:
            self.restored_s = seconds
        else:
            self.made_s = seconds
        how = "restored from a saved state" if result.restored else "made"
        return f"{len(self._lab.nodes)} nodes with Docker {self._lab.docker}, {how}"

    def _nodes(self) -> str:
        lab = self._running()
        with self._progress.stage("asking each node"):
            listed = lab.manager.run(["docker", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
            states = sorted(listed.check().lines)
            wanted = sorted(f"{name} Ready" for name in lab.nodes)
            if states != wanted:
                raise SwarmError(f"docker node ls says: {', '.join(states)}", hint=_ASK)
            for answer in lab.run_all([(node.place, ["hostname"]) for node in lab.nodes.values()]):
                answer.check()
        return f"docker node ls: {', '.join(states)}; each runs a command"

    def _port(self) -> str:
        lab, you = self._running(), self._you
        with self._progress.stage("asking a published port"):
            lab.service(you.service, replicas=len(lab.nodes), publish=f"{you.port}:3000")
            lab.wait_for_answers(you.service)
            lab.wait_for_port(you.port)
        return f"port {you.port} answers on {', '.join(lab.nodes)}"

    def _restore(self) -> str:
        self._close()
        swarm.down(self._name)
        return self._start()

    def _down(self) -> str:
        with self._progress.stage("taking the swarm down"):
            swarm.down(self._name)
            if self._name in engines.labs():
                raise SwarmError(
                    f"something of the lab {self._name} is left",
                    hint=f"labkit down --lab {self._name}",
                )
        return "nothing is left"

    def _running(self) -> swarm.Lab:
        assert self._lab is not None  # the step before has it
        return self._lab

    def _close(self) -> None:
        if self._lab is not None:
            with contextlib.suppress(Exception):  # a machine that has ended cannot be closed
                self._lab.close()
            self._lab = None


@contextlib.contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Stop the body by _TimeUp after so many seconds; None is for ever.

    Only the main thread can be stopped, which is where the command runs.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _machine() -> dict[str, Any]:
    """Return what the swarm ran on: system, python, processors, memory_gb."""
    import psutil

    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # macOS, say
        system = f"{platform.system()} {platform.release()}"
    return {
        "system": system,
        "python": platform.python_version(),
        "processors": os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
