"""What a sandbox may use, and the thread that sees to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

HOME = Path("/home/learner")
_CHECK_EVERY_S = 0.25
_END_S = 10.0  # for what is in a sandbox to be gone after it was killed
_MAX_ATTEMPTS = 60
_NETWORK = Path("/proc/sys/net")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    cell_seconds: float = 30  # of the processor, and three times that by the clock
    notebook_seconds: float = 300  # by the clock
    memory: int = 2 * 2**30  # bytes, of all its processes together
    processes: int = 32
    folder: int = 64 * 2**20  # bytes, of everything that it writes
    files: int = 2000  # in its folder

    def per_process(self) -> dict[str, int]:
        """Return what one process may take, by the names of the module `resource`."""
        return {
            "AS": 2 * self.memory,  # addresses: libraries and threads reserve more than they use
            "CORE": 0,
            "CPU": int(self.notebook_seconds) + 30,
            "FSIZE": self.folder,
            "NOFILE": 256,
            "NPROC": 4 * self.processes,  # threads count as well
        }


class Usage(NamedTuple):
    """What a sandbox uses at one moment."""

    memory: int
    """Bytes of its processes and of their page tables, of what it wrote, and of what may wait in its
    sockets."""
    cpu_seconds: float
    files: int


class Monitor(threading.Thread):
    """Watches what a sandbox uses, and kills it where that is too much; reads its witness's reports.

    ``pid`` is the first process inside, as the host counts; ``reports`` a pipe that does not block, to
    which `sandbox_main` writes.
    """

    def __init__(self, pid: int, reports: int, limits: Limits) -> None:
        super().__init__(daemon=True, name="sandbox-monitor")
        self.killed_because = ""
        """What it took too much of; empty where it was not killed for that."""
        self.attempts: list[str] = []
        """What its code tried that has no place in an answer."""
        self.cpu_seconds = 0.0
        """Processor time that its processes took."""
        self._pid, self._reports, self._limits = pid, reports, limits
        self._first: int | None = None  # the first process: its number may be another's by then
        with contextlib.suppress(ProcessLookupError):
            self._first = os.pidfd_open(pid)
        self._over = threading.Event()
        self._unread = b""

    def run(self) -> None:
        """Watch until the sandbox is gone."""
        while not self._over.wait(_CHECK_EVERY_S):
            self._read_reports()
            try:
                self._check_limits()
            except OSError:  # it is gone
                continue
            except Exception:  # what nobody watches must not go on
                _log.exception("killing sandbox %s: what it takes cannot be told", self._pid)
                self.killed_because = self.killed_because or "what cannot be told"
                self._kill()
        self._read_reports()
        os.close(self._reports)

    def stop(self) -> None:
        """End the sandbox with all that is in it, and stop watching; the attempts are complete then."""
        self._kill()
        if self._first is not None:
            # Linux lets the first process end when all others in there have ended.
            ended = select.poll()
            ended.register(self._first, select.POLLIN)
            if not ended.poll(_END_S * 1000):
                _log.warning("sandbox %s is not gone %g s after it was killed", self._pid, _END_S)
        self._over.set()
        self.join()
        if self._first is not None:
            os.close(self._first)
            self._first = None

    def _kill(self) -> None:
        """Kill the first process in there; the others die with it, whatever they did to be spared."""
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def _check_limits(self) -> None:
        """Kill a sandbox that takes too much; raises OSError where it is gone."""
        limits, why = self._limits, ""
        # Counted before anything is read of each: a fork bomb whose processes leave their session gets
        # nearly all of the processor where Linux shares that by session, and the grader next to none.
        processes = _processes(self._pid)
        if len(processes) > limits.processes:
            self._end_for(f"more than {limits.processes} processes")
            return
        used = usage(self._pid, processes)
        self.cpu_seconds = max(self.cpu_seconds, used.cpu_seconds)
        if used.memory > limits.memory and self._takes_too_much():
            why = f"more than {limits.memory / 2**30:g} GiB of memory"
        elif used.files > limits.files:
            why = f"more than {limits.files} files"
        if why:
            self._end_for(why)

    def _end_for(self, why: str) -> None:
        """Kill the sandbox for what it took too much of."""
        _log.info("killing sandbox %s: it took %s", self._pid, why)
        self.killed_because = self.killed_because or why
        self._kill()

    def _takes_too_much(self) -> bool:
        """Whether it is too much memory even where pages that several processes map count once.

        Looked at twice: while processes end, what they shared is counted with those that remain.
        """
        looks = (usage(self._pid, _processes(self._pid), exact=True) for _ in range(2))
        return all(look.memory > self._limits.memory for look in looks)

    def _read_reports(self) -> None:
        """Note what the witness reports; it may be the learner's code that writes there."""
        with contextlib.suppress(OSError):
            self._unread += os.read(self._reports, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        self._unread = self._unread[-4096:]
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                sentence = json.loads(line)
                is_new = isinstance(sentence, str) and sentence not in self.attempts
                if is_new and len(self.attempts) < _MAX_ATTEMPTS:
                    self.attempts.append(sentence[:300])


def usage(pid: int, processes: list[Path], *, exact: bool = False) -> Usage:
    """Return what a sandbox uses, by its first process's number; raises OSError where it is gone.

    ``processes`` are the directories in /proc of the others.

    Memory that several processes map is counted for each of them; ``exact`` counts it once, for which
    Linux walks through all of it: some milliseconds for each 100 MiB. Memory that no process maps is
    what its folders hold and what waits in sockets; the system-call filter leaves no other kind but
    pipes, which Linux bounds for each user.
    """
    memory, cpu_seconds = 0, 0.0
    for process in processes:
        with contextlib.suppress(OSError):  # one that has ended
            sizes = _kilobytes(process / "status")
            counted = ["VmRSS", "VmSwap", "VmPTE"]
            if exact and "VmRSS" in sizes:
                sizes |= _kilobytes(process / "smaps_rollup")
                counted = ["Pss", "SwapPss", "VmPTE"]
            memory += 1024 * sum(sizes.get(name, 0) for name in counted)
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
            cpu_seconds += sum(map(int, fields[11:15])) / _TICKS  # utime, stime, and its children's
    folders = [os.statvfs(f"/proc/{pid}/root{folder}") for folder in (HOME, "/tmp")]
    memory += sum(one.f_frsize * (one.f_blocks - one.f_bfree) for one in folders)
    files = sum(one.f_files - one.f_ffree for one in folders)
    return Usage(memory + _in_sockets(pid), cpu_seconds, files)


def _in_sockets(pid: int) -> int:
    """Return the bytes that may wait in a sandbox's sockets, each of them full.

    Of TCP's it is not more than what waits in those of the whole machine, which Linux tells.
    """
    words = Path(f"/proc/{pid}/net/sockstat").read_text().split()
    tcp = words[words.index("TCP:") :]
    buffer = int((_NETWORK / "core/wmem_default").read_text())
    # The least, the first and the greatest size of a buffer; and pages, of all network namespaces.
    largest = sum(int((_NETWORK / f"ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")
    in_tcp = min(int(tcp[tcp.index("inuse") + 1]) * largest, int(tcp[tcp.index("mem") + 1]) * _PAGE)
    return int(words[words.index("used") + 1]) * buffer + in_tcp


def _processes(pid: int) -> list[Path]:
    """Return the directories in /proc of all in a sandbox but the first, whoever started them.

    It is the sandbox's own /proc that is read, so that this takes no longer on a busy machine.
    """
    found = Path(f"/proc/{pid}/root/proc").iterdir()
    return [path for path in found if path.name.isdigit() and path.name != "1"]


def _kilobytes(file: Path) -> dict[str, int]:
    """Return the sizes in a file of /proc: name to kB."""
    # The code inside chooses its processes' names, and one may look like a size.
    found = re.findall(r"^(\w+):\s+(\d+) kB$", file.read_text(errors="replace"), re.MULTILINE)
    return {name: int(size) for name, size in found if name != "Name"}
