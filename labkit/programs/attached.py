"""Runs a command for who connects to a socket: `labkit exec` is at the other end.

Words: the socket's path, `terminal` or `pipes`, the command. Both sides send frames, each a kind and a
length (five bytes) and so many bytes:

    to the command     0 input, 1 end of the input, 2 rows and columns of the terminal, 3 interrupt
    from the command   1 output, 2 errors, 0 its exit code as text, the last frame

When the connection ends, the command is ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from typing import Any

INPUT, END, SIZE, INTERRUPT = range(4)
CODE, OUTPUT, ERRORS = range(3)
HEAD = struct.Struct(">BL")
CHUNK = 1 << 15

path, kind, *argv = sys.argv[1:]
before = os.umask(0o177)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
os.umask(before)
server.listen()
print("listening", file=sys.stderr, flush=True)
peer, _ = server.accept()
server.close()
os.unlink(path)


def send(what: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more; `listen` sees it too
        peer.sendall(HEAD.pack(what, len(data)) + data)


def begin() -> tuple[subprocess.Popen[bytes], int, dict[int, int]]:
    """Start the command; returns it, where its input goes, and whence its output comes."""
    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": prepare}
    if kind == "terminal":
        ours, theirs = os.openpty()
        command = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, **options)
        os.close(theirs)
        return command, ours, {ours: OUTPUT}
    pipe = subprocess.PIPE
    command = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, **options)
    assert command.stdin
    assert command.stdout
    assert command.stderr
    outputs = {command.stdout.fileno(): OUTPUT, command.stderr.fileno(): ERRORS}
    return command, command.stdin.fileno(), outputs


def prepare() -> None:
    """In the command's process: what the agent's shell has it ignore; a terminal of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if kind == "terminal":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def end(*_: object) -> None:
    """End the command, politely first."""
    for number, patience in ((signal.SIGINT, 2), (signal.SIGHUP, 1), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(command.pid, number)
            command.wait(patience)
            break
    os._exit(0)


def listen() -> None:
    """Hand on what the caller sends, until the caller is gone."""
    with peer.makefile("rb") as frames, contextlib.suppress(OSError):
        while head := frames.read(HEAD.size):
            what, length = HEAD.unpack(head)
            data = frames.read(length)
            with contextlib.suppress(OSError):  # a command may end, or close its input, before
                take(what, data)
    end()


def take(what: int, data: bytes) -> None:
    if what == INPUT:
        while data:
            data = data[os.write(to, data) :]
    elif what == END:
        if command.stdin:
            command.stdin.close()
    elif what == SIZE:
        rows, columns = struct.unpack(">HH", data)
        fcntl.ioctl(to, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    elif what == INTERRUPT:
        os.killpg(command.pid, signal.SIGINT)


try:
    command, to, outputs = begin()
except OSError as problem:
    send(ERRORS, f"labkit: {problem}\n".encode())
    send(CODE, b"127")
    sys.exit()
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
threading.Thread(target=listen, daemon=True).start()
while outputs:
    ready = select.select(list(outputs), [], [], 0.5)[0]
    if not ready and command.poll() is not None:
        break  # what it left behind still holds its output
    for source in ready:
        try:
            data = os.read(source, CHUNK)
        except OSError:  # the terminal's last process has ended
            data = b""
        if data:
            send(outputs[source], data)
        else:
            del outputs[source]
code = command.wait()
send(CODE, str(code if code >= 0 else 128 - code).encode())
