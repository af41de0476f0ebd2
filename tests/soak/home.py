"""The home that the soak works in: its commands, and what they leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from labkit import paths

MARK = "LABKIT_SOAK"
BUILT = ("machine-*", "nodes-*", "*.tar", "states/swarm-*", "accel.json")
_HALF = re.compile(r"unfinished|\.partial$|labkit-bootstrap")
_READY_SECONDS = 90.0
_END_SECONDS = 15.0  # for what a killed command has started to see that it is alone


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float


class Home:
    """A directory with a cache, labs and temporary files of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.tmp = self.directory / "tmp"
        self.work = self.directory / "work"
        self.env = {
            **os.environ,
            "LABKIT_HOME": str(self.directory),
            "TMPDIR": str(self.tmp),
            "JUPYTER_RUNTIME_DIR": str(self.tmp / "jupyter"),
            "IPYTHONDIR": str(self.work / "ipython"),
            "PYTHONPATH": str(paths.REPOSITORY),
            "COLUMNS": "200",
            MARK: str(self.directory),
        }
        self._sessions: set[int] = set()
        for path in (self.tmp, self.work, self.cache):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def cache(self) -> Path:
        """The directory of what was built."""
        return self.directory / "cache"

    @property
    def labs(self) -> Path:
        """The directory of the machines."""
        return self.directory / "labs"

    def borrow(self, cache: Path, *patterns: str) -> None:
        """Take over what another cache has built, by links where that can be: nobody writes to it."""
        for pattern in patterns or BUILT:
            for source in cache.glob(pattern):
                target = self.cache / source.relative_to(cache)
                if target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, copy_function=_link)
                else:
                    _link(source, target)

    def start(self, *argv: str, terminal: bool = False) -> tuple[subprocess.Popen[str], int]:
        """Start a command in a session of its own; with `terminal`, also on a terminal of its own.

        Returns it and the descriptor whose closing closes the terminal; -1 where it has none.
        """
        ours, theirs = pty.openpty() if terminal else (-1, subprocess.DEVNULL)
        log = (self.work / "killed.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "labkit", *argv],
            stdin=theirs,
            stdout=theirs if terminal else log,
            stderr=theirs if terminal else log,
            text=True,
            env=self.env,
            cwd=self.work,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,
        )
        self._sessions.add(process.pid)
        log.close()
        if terminal:
            os.close(theirs)
        return process, ours

    def run(self, *argv: str, timeout: float = 900) -> Done:
        """Run a command to its end; one that does not end in time is killed and raises."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.work,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    # --- what is there --------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """List the processes that commands of this home have started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                ours = os.getsid(process.pid) in self._sessions or process.environ().get(MARK) == str(
                    self.directory
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """Say what is there of labs and killed commands; called after `labkit down --all`."""
        deadline = time.monotonic() + _END_SECONDS
        while (alive := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        said = [f"process {process.pid} {process.name()}" for process in alive]
        with contextlib.suppress(FileNotFoundError):
            said += [f"labs/{path.name}" for path in self.labs.iterdir()]
        said += [str(path.relative_to(self.directory)) for path in self._half_written()]
        said += [f"tmp/{path.name}" for path in self.tmp.iterdir() if path.name != "jupyter"]
        said += [str(path.relative_to(self.directory)) for path in self.tmp.glob("jupyter/*.json")]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        said += [line.split()[1] for line in mounts if f"{self.directory}/" in line.split()[1]]
        return said

    def _half_written(self) -> Iterator[Path]:
        for path in self.cache.rglob("*"):
            if _HALF.search(path.name):
                yield path

    # --- what a swarm must be -------------------------------------------------------------------------

    def prove(self, lab: str, nodes: int = 3, *, engine: str = "vm") -> str:
        """Have a lab up and ask it; returns what is wrong, "" where it is whole."""
        up = self.run("up", "--engine", engine, "--lab", lab, "--nodes", str(nodes), "--json")
        if up.code and "is up already" not in up.err:
            return f"up ended with {up.code}: {up.err.strip()[-400:]}"
        # Swarm takes a node for lost whose heartbeats are late, as on a busy machine, and back again.
        deadline = time.monotonic() + _READY_SECONDS
        states: list[str] = []
        while states != ["ready"] * nodes:
            if time.monotonic() > deadline:
                return f"the nodes are {states}"
            status = self.run("status", "--lab", lab, "--json")
            if status.code:
                return f"status ended with {status.code}: {status.err.strip()[-400:]}"
            states = [node["state"] for node in json.loads(status.out)["nodes"]]
        asked = self.run("exec", "--lab", lab, f"node{nodes}", "--", "cat", "/proc/sys/kernel/hostname")
        if asked.out.strip() != f"node{nodes}":
            return f"node{nodes} said {asked.out.strip()!r}: {asked.err.strip()[-400:]}"
        return ""

    def take_all_down(self) -> str:
        """Run `labkit down --all`; returns what is wrong or left, "" where nothing is."""
        done = self.run("down", "--all")
        if done.code:
            return f"down --all ended with {done.code}: {done.err.strip()[-400:]}"
        left = self.left()
        return f"left after down --all: {', '.join(left)}" if left else ""


def send(process: subprocess.Popen[str], terminal: int, number: signal.Signals) -> None:
    """Send a signal as its sender would: Ctrl-C to the whole group, SIGHUP by closing the terminal."""
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGHUP and terminal >= 0:
            os.close(terminal)
        elif number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
