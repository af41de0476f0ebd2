"""Runs a command on a node with this process's input and output, line by line as they come.

The node's agent tells only at the end what a command printed, and gives it no input. So it starts
`labkit/programs/attached.py` there, which runs the command for who connects to its socket.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import threading
from collections.abc import Callable
from typing import BinaryIO

from labkit import programs
from labkit.transport.base import Command, NodeUnreachable
from labkit.transport.live import LiveLink

Write = Callable[[int, bytes], None]
"""Takes what the command prints: 1 for its output or 2 for its errors, and the bytes."""

_INPUT, _END, _SIZE, _INTERRUPT = range(4)
_CODE = 0
_HEAD = struct.Struct(">BL")
_CHUNK = 1 << 15
_READY_SECONDS = 60.0


class Attached:
    """A command on a node that is under way."""

    def __init__(self, link: LiveLink, command: Command, *, terminal: bool) -> None:
        """Start it; raises NodeUnreachable, and TaskReplaced where its container is gone."""
        self._node = link.node
        words = link.runner.words(command)
        if command.netns and not command.container:
            words = ["nsenter", f"--net={command.netns}", "--", *words]
        path = f"/run/labkit-exec-{secrets.token_hex(8)}.sock"
        kind = "terminal" if terminal else "pipes"
        argv = programs.argv("attached", path, kind, *words)
        number, _ = link.runner.submit(Command(tuple(argv), command.place, ready="listening"))
        try:
            link.runner.wait_ready(number, _READY_SECONDS)
            self._socket = link.reach(path)
        except BaseException:
            link.runner.stop(number)
            raise
        self._sending = threading.Lock()

    def _send(self, kind: int, data: bytes = b"") -> None:
        with self._sending, contextlib.suppress(OSError):  # it has ended: `run` tells its code
            self._socket.sendall(_HEAD.pack(kind, len(data)) + data)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the command's terminal how large it is."""
        self._send(_SIZE, struct.pack(">HH", rows, columns))

    def interrupt(self) -> None:
        """Interrupt the command (SIGINT)."""
        self._send(_INTERRUPT)

    def feed(self, source: int | None) -> None:
        """Hand on all that comes from a file descriptor, in a thread; without one there is no input."""
        if source is None:
            self._send(_END)
        else:
            threading.Thread(target=self._pump, args=(source,), daemon=True).start()

    def _pump(self, source: int) -> None:
        while data := os.read(source, _CHUNK):
            self._send(_INPUT, data)
        self._send(_END)

    def run(self, write: Write) -> int:
        """Hand on what the command prints until it ends; returns its exit code.

        Who stops waiting ends the command. Raises NodeUnreachable.
        """
        try:
            with self._socket.makefile("rb") as frames:
                return self._follow(frames, write)
        finally:
            self._socket.close()

    def _follow(self, frames: BinaryIO, write: Write) -> int:
        while len(head := frames.read(_HEAD.size)) == _HEAD.size:
            kind, length = _HEAD.unpack(head)
            data = frames.read(length)
            if kind == _CODE:
                return int(data)
            write(kind, data)
        raise NodeUnreachable(self._node, "the stream to it has ended")
