"""Runs commands on a node for labkit, many side by side, for whoever connects to its unix socket.

Starting a `docker exec` costs a second or more under emulation; asking this program costs a fork. It
reads one JSON object a line from a connection and answers with one a line, in order of completion:

    {"id": 1, "argv": ["ip", "neigh"]}                      run, answer when it has ended
    {"id": 2, "argv": [...], "ready": "listening on"}       answer {"id": 2, "ready": true} when a line
                                                            on stderr holds that text, then as above
    {"id": 2, "stop": true}                                 interrupt (SIGINT) what runs as 2

with, in a run: "netns" (path of a network namespace), "pid" (run in that container, with its
capabilities), "timeout" (seconds). The answer to a run: id, code, stdout, stderr, started (seconds
since the epoch), seconds, timed_out. When a connection closes, what it started and still runs is
killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socketserver
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SOCKET = "/run/labkit-agent.sock"
SIDE_BY_SIDE = 16
KILLED_AFTER = 2.0  # seconds between a polite interrupt and a kill


def in_place(request: dict[str, Any]) -> list[str]:
    """Return the command as it is run, inside the namespaces that the request names."""
    argv: list[str] = request["argv"]
    if request.get("netns"):
        return ["nsenter", "--net=" + request["netns"], "--", *argv]
    if request.get("pid"):
        target = str(request["pid"])
        with open(f"/proc/{target}/status") as status:
            found = re.search(r"CapBnd:\s*([0-9a-f]+)", status.read())
        if not found:
            raise ProcessLookupError(f"process {target} names no capabilities")
        held = int(found[1], 16)
        # nsenter keeps the node's own power; the container's processes have less, and a learner must
        # see what they see.
        kept = ",".join(f"+cap_{n}" for n in range(64) if held >> n & 1)
        enter = ["nsenter", "--target", target, "--all", "--", "setpriv"]
        return [*enter, "--inh-caps=-all", "--bounding-set=-all," + kept, "--", *argv]
    return argv


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a process group to end, then make it."""
    tries: tuple[tuple[signal.Signals, float | None], ...] = (
        (signal.SIGINT, KILLED_AFTER),
        (signal.SIGKILL, None),
    )
    for number, patience in tries:
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


class Client(socketserver.StreamRequestHandler):
    """One connection, and what runs for it."""

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        self.output = threading.Lock()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        pool = ThreadPoolExecutor(SIDE_BY_SIDE)
        try:
            for line in self.rfile:
                self.take(json.loads(line), pool)
        except OSError:
            pass
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self.running.values()):
            interrupt(process)

    def take(self, request: dict[str, Any], pool: ThreadPoolExecutor) -> None:
        """Begin what one request asks for."""
        if request.get("stop"):
            process = self.running.get(request["id"])
            if process:
                threading.Thread(target=interrupt, args=(process,), daemon=True).start()
        elif request.get("ready"):
            # What runs until it is stopped must not take a place from what ends by itself.
            threading.Thread(target=self.run, args=(request,), daemon=True).start()
        else:
            pool.submit(self.run, request)

    def answer(self, message: dict[str, Any]) -> None:
        """Write one answer; two of them never mix."""
        with self.output, contextlib.suppress(OSError):  # nobody listens any more
            self.wfile.write(json.dumps(message).encode() + b"\n")

    def run(self, request: dict[str, Any]) -> None:
        """Run one command to its end and answer."""
        began, clock = time.time(), time.monotonic()
        late = threading.Event()
        errors: list[str] = []
        try:
            process = subprocess.Popen(
                in_place(request),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as problem:
            self.answer(
                {
                    "id": request["id"],
                    "code": 127,
                    "stdout": "",
                    "stderr": f"labkit: {problem}\n",
                    "started": began,
                    "seconds": 0.0,
                    "timed_out": False,
                }
            )
            return
        self.running[request["id"]] = process
        assert process.stdout
        assert process.stderr
        lines = process.stderr

        def read_errors() -> None:
            waiting = request.get("ready")
            for raw in lines:
                line = raw.decode(errors="replace")
                errors.append(line)
                if waiting and waiting in line:
                    self.answer({"id": request["id"], "ready": True})
                    waiting = None

        def too_late() -> None:
            late.set()
            interrupt(process)

        reader = threading.Thread(target=read_errors, daemon=True)
        reader.start()
        timer = threading.Timer(request["timeout"], too_late) if request.get("timeout") else None
        if timer:
            timer.start()
        stdout = process.stdout.read().decode(errors="replace")
        code = process.wait()
        if timer:
            timer.cancel()
        reader.join(KILLED_AFTER)
        self.running.pop(request["id"], None)
        self.answer(
            {
                "id": request["id"],
                "code": code if code >= 0 else 128 - code,
                "stdout": stdout,
                "stderr": "".join(errors),
                "started": began,
                "seconds": time.monotonic() - clock,
                "timed_out": late.is_set(),
            }
        )


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Gives each connection a thread."""

    daemon_threads = True


if __name__ == "__main__":
    before = os.umask(0o177)
    server = Server(SOCKET, Client)
    os.umask(before)
    server.serve_forever()
