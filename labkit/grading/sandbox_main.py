"""The first program in a sandbox: takes limits for good, watches the code, starts the kernel.

    python -m labkit.grading.sandbox_main LIMITS FD KERNEL-ARGUMENTS…

LIMITS is JSON, `resource` names without RLIMIT_ and their values. To FD goes one JSON string per line
for each thing that the learner's own code tried and that has no place in an answer: a file outside its
folder, the network, another process. They come from Python's audit events. This is a witness and not a
wall: the wall is around the sandbox, and code that goes past Python (`ctypes`, another program) is seen
only when it leaves.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAX_REPORTS = 50
_PACKAGE = Path(__file__).resolve().parent.parent
_PROGRAMS = {
    "os.exec": 0,
    "os.posix_spawn": 0,
    "os.spawn": 1,
    "os.system": 0,
    "pty.spawn": 0,
    "subprocess.Popen": 1,
}
_CHANGES = (
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
    *("os.symlink", "os.truncate", "shutil.rmtree"),
)
_READS = ("open", "os.chdir", "os.listdir", "os.scandir", "sqlite3.connect")
_NETWORK = (
    *("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.sendto", "socket.sendmsg"),
)
# Of the Internet's it is `connect` and the like that are told; -1 is where a descriptor says which.
_ORDINARY_FAMILIES = (-1, socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)


class Witness:
    """An audit hook that reports what the learner's own code tries.

    ``readable`` are the directories that it may read, beside ``folder``, which it may also change.
    """

    def __init__(self, report: Callable[[str], None], readable: list[str], folder: str) -> None:
        self._report, self._folder = report, folder
        self._readable = tuple(
            f"{Path(p)}/" for p in [*readable, folder, "/dev", "/proc", "/tmp", "/usr"]
        )
        self._libraries = tuple(
            f"{p}/" for p in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
        )
        self._kit = f"{_PACKAGE}/"
        self._reported: set[str] = set()
        self._sentences: dict[str, Callable[[str, Any], str | None]] = {
            **dict.fromkeys(_PROGRAMS, self._program),
            **dict.fromkeys(_CHANGES, self._change),
            **dict.fromkeys(_READS, self._read),
            **dict.fromkeys(_NETWORK, self._network),
            "socket.__new__": self._socket,
            **dict.fromkeys(("os.fork", "os.forkpty"), lambda *_: "started another process"),
            **dict.fromkeys(("os.kill", "os.killpg"), self._kill),
            "ctypes.dlopen": lambda _, args: f"loaded the C library {str(args[0])[:80]} by ctypes",
        }

    def __call__(self, event: str, args: Any) -> None:
        """Take one audit event; whatever goes wrong in here must not reach the code that raised it."""
        describe = self._sentences.get(event)
        if describe is None or len(self._reported) >= _MAX_REPORTS:
            return
        try:
            sentence = describe(event, args)
            if sentence and sentence not in self._reported and self._is_learners():
                self._reported.add(sentence)
                self._report(sentence)
        except Exception:
            return

    def _is_learners(self) -> bool:
        """Whether a cell caused the event, through whatever library; an import or labkit is no cell."""
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib") or name.startswith(self._kit):
                return False
            if not name.startswith((*self._libraries, "<frozen")):
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def _path(self, value: Any) -> str | None:
        if isinstance(value, int) or value in (None, "", ":memory:"):
            return None
        return os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(value)))

    def _read(self, event: str, args: Any) -> str | None:
        path = self._path(args[0])
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if path and writes:
            return self._change(event, args)
        outside = path and not f"{path}/".startswith(self._readable)
        return f"tried to read {path[:200]}, outside its folder" if path and outside else None

    def _change(self, _: str, args: Any) -> str | None:
        path = self._path(args[0])
        mine = (f"{self._folder}/", "/tmp/", "/dev/")
        # A checkout may lie below /tmp itself.
        kits = path and path.startswith((self._kit, *self._libraries))
        outside = path and (kits or not (f"{path}/".startswith(mine) and path != self._folder))
        return f"tried to change {path[:200]}, outside its folder" if path and outside else None

    def _network(self, event: str, args: Any) -> str:
        where = args[-1] if event in ("socket.bind", "socket.connect", "socket.sendto") else args[0]
        return f"tried to use the network: {event.partition('.')[2]} {str(where)[:80]}"

    def _socket(self, _: str, args: Any) -> str | None:
        family = args[1]
        if family in _ORDINARY_FAMILIES:
            return None
        known = {int(one): one.name for one in socket.AddressFamily}
        return f"tried to use the network: a socket of {known.get(family, f'family {family}')}"

    def _kill(self, _: str, args: Any) -> str:
        return f"tried to send signal {args[1]} to process {args[0]}"

    def _program(self, event: str, args: Any) -> str:
        what = args[_PROGRAMS[event]]
        words = what if isinstance(what, list | tuple) else [what]
        return f"started a program: {' '.join(os.fsdecode(word) for word in words)[:120]}"


def main() -> None:
    """Run the kernel, limited and watched."""
    limits, fd, *arguments = sys.argv[1:]
    for name, value in json.loads(limits).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    pipe = int(fd)
    os.set_blocking(pipe, False)
    os.set_inheritable(pipe, False)

    def report(sentence: str) -> None:
        os.write(pipe, json.dumps(sentence).encode() + b"\n")

    from ipykernel.kernelapp import launch_new_instance

    readable = [sys.prefix, sys.base_prefix, *filter(None, sys.path)]
    sys.addaudithook(Witness(report, readable, os.getcwd()))
    sys.argv = ["ipykernel", *arguments]
    launch_new_instance()


if __name__ == "__main__":
    main()
