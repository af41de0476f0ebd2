"""The first program in a cage: takes limits that cannot be raised again, listens, starts the kernel.

    python -m labkit.grading.sandbox_main LIMITS FD KERNEL-ARGUMENTS…

LIMITS is JSON, `resource` names without RLIMIT_ and their values. To FD goes one JSON string for each
thing that the learner's own code tried and that has no place in an answer: a file outside its folder,
the network, another process. Python's audit events tell of it. This is a witness and not a wall: the
wall is around the cage, and code that goes past Python (`ctypes`, another program) is seen only when it
leaves.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAX_TOLD = 50
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


class Witness:
    """Tells what the learner's own code tries; `own` are the directories that it may read."""

    def __init__(self, tell: Callable[[str], None], own: list[str], folder: str) -> None:
        self._tell, self._folder = tell, folder
        self._own = tuple(f"{Path(p)}/" for p in [*own, folder, "/dev", "/proc", "/tmp", "/usr"])
        self._libraries = tuple(
            f"{p}/" for p in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
        )
        self._kit = f"{Path(__file__).parent}/"
        self._told: set[str] = set()
        self._asks: dict[str, Callable[[str, Any], str | None]] = {
            **dict.fromkeys(_PROGRAMS, self._program),
            **dict.fromkeys(_CHANGES, self._change),
            **dict.fromkeys(_READS, self._read),
            **dict.fromkeys(_NETWORK, self._network),
            **dict.fromkeys(("os.fork", "os.forkpty"), lambda *_: "started another process"),
            **dict.fromkeys(("os.kill", "os.killpg"), self._kill),
            "ctypes.dlopen": lambda _, args: f"loaded the C library {str(args[0])[:80]} by ctypes",
        }

    def __call__(self, event: str, args: Any) -> None:
        """Hear one audit event; whatever goes wrong in here must not reach the code that is heard."""
        ask = self._asks.get(event)
        if ask is None or len(self._told) >= _MAX_TOLD:
            return
        try:
            sentence = ask(event, args)
            if sentence and sentence not in self._told and self._is_learners():
                self._told.add(sentence)
                self._tell(sentence)
        except Exception:
            return

    def _is_learners(self) -> bool:
        """Whether neither an import nor labkit asked, but a cell, through whatever library."""
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
        outside = path and not f"{path}/".startswith(self._own)
        return f"tried to read {path[:200]}, outside its folder" if path and outside else None

    def _change(self, _: str, args: Any) -> str | None:
        path = self._path(args[0])
        mine = (f"{self._folder}/", "/tmp/", "/dev/")
        outside = path and not (f"{path}/".startswith(mine) and path != self._folder)
        return f"tried to change {path[:200]}, outside its folder" if path and outside else None

    def _network(self, event: str, args: Any) -> str:
        where = args[-1] if event in ("socket.bind", "socket.connect", "socket.sendto") else args[0]
        return f"tried to use the network: {event.partition('.')[2]} {str(where)[:80]}"

    def _kill(self, _: str, args: Any) -> str:
        return f"tried to send signal {args[1]} to process {args[0]}"

    def _program(self, event: str, args: Any) -> str:
        what = args[_PROGRAMS[event]]
        words = what if isinstance(what, list | tuple) else [what]
        return f"started a program: {' '.join(os.fsdecode(word) for word in words)[:120]}"


def main() -> None:
    """Run the kernel, limited and heard."""
    limits, fd, *arguments = sys.argv[1:]
    for name, value in json.loads(limits).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    pipe = int(fd)
    os.set_blocking(pipe, False)
    os.set_inheritable(pipe, False)

    def tell(sentence: str) -> None:
        os.write(pipe, json.dumps(sentence).encode() + b"\n")

    from ipykernel.kernelapp import launch_new_instance

    own = [sys.prefix, sys.base_prefix, str(Path(__file__).parent.parent)]
    sys.addaudithook(Witness(tell, own, os.getcwd()))
    sys.argv = ["ipykernel", *arguments]
    launch_new_instance()


if __name__ == "__main__":
    main()
