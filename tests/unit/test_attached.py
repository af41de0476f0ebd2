"""`labkit exec`'s program on the node, run here: input, output, codes, and an end with its caller."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from labkit import programs

HEAD = struct.Struct(">BL")
INPUT, END, SIZE, INTERRUPT = range(4)


class Caller:
    """The other end: a connection to the program."""

    def __init__(self, path: Path, *argv: str, kind: str = "pipes") -> None:
        words = [sys.executable, *programs.argv("attached", str(path), kind, *argv)[1:]]
        self.program = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.program.stderr
        assert self.program.stderr.readline() == "listening\n"
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.settimeout(20)
        self.peer.connect(str(path))
        self.frames = self.peer.makefile("rb")

    def send(self, kind: int, data: bytes = b"") -> None:
        self.peer.sendall(HEAD.pack(kind, len(data)) + data)

    def next(self) -> tuple[int, bytes]:
        kind, length = HEAD.unpack(self.frames.read(HEAD.size))
        return kind, self.frames.read(length)

    def rest(self) -> tuple[int, bytes, bytes]:
        """Read to the end: exit code, output, errors."""
        texts = {1: b"", 2: b""}
        while True:
            kind, data = self.next()
            if kind == 0:
                return int(data), texts[1], texts[2]
            texts[kind] += data

    def close(self) -> None:
        self.frames.close()
        self.peer.close()
        self.program.wait(20)
        assert self.program.stderr
        self.program.stderr.close()


Start = Callable[..., Caller]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    callers: list[Caller] = []

    def begin(*argv: str, kind: str = "pipes") -> Caller:
        callers.append(Caller(tmp_path / f"{len(callers)}.sock", *argv, kind=kind))
        return callers[-1]

    yield begin
    for caller in callers:
        caller.close()


def test_a_megabyte_goes_through_and_comes_back(start: Start) -> None:
    caller = start("cat")
    data = os.urandom(1 << 20)
    pid = os.fork()
    if not pid:  # who only sends before it reads would fill both ways
        for begin in range(0, len(data), 1 << 15):
            caller.send(INPUT, data[begin : begin + (1 << 15)])
        caller.send(END)
        os._exit(0)
    assert caller.rest() == (0, data, b"")
    os.waitpid(pid, 0)


def test_output_errors_and_the_code_are_told_apart(start: Start) -> None:
    caller = start("sh", "-c", "echo out; echo err >&2; exit 7")
    caller.send(END)
    assert caller.rest() == (7, b"out\n", b"err\n")


def test_lines_come_before_the_end(start: Start) -> None:
    caller = start("sh", "-c", "echo first; read answer; echo $answer")
    assert caller.next() == (1, b"first\n")
    caller.send(INPUT, b"second\n")
    assert caller.rest() == (0, b"second\n", b"")


def test_a_program_that_is_not_there_gives_127(start: Start) -> None:
    code, _, errors = start("no-such-program").rest()
    assert code == 127
    assert b"No such file" in errors


def test_an_interrupt_reaches_the_command(start: Start) -> None:
    caller = start("sleep", "60")
    caller.send(INTERRUPT)
    assert caller.rest() == (130, b"", b"")


def test_a_terminal_is_one_and_has_a_size(start: Start) -> None:
    caller = start("sh", "-c", "read go; tty; stty size", kind="terminal")
    caller.send(SIZE, struct.pack(">HH", 33, 111))
    caller.send(INPUT, b"\n")
    code, out, _ = caller.rest()
    assert code == 0
    assert b"/dev/pts/" in out
    assert b"33 111" in out


def test_what_is_left_behind_with_the_output_does_not_hold_the_caller(start: Start) -> None:
    caller = start("sh", "-c", "sleep 30 & echo $!")
    code, out, _ = caller.rest()
    assert code == 0
    psutil.Process(int(out)).kill()


def test_the_command_ends_with_its_caller(start: Start) -> None:
    caller = start("sh", "-c", "echo $$; trap '' INT HUP; sleep 60")
    _, told = caller.next()
    process = psutil.Process(int(told))
    caller.peer.shutdown(socket.SHUT_RDWR)
    _, alive = psutil.wait_procs([process], timeout=20)
    assert not alive
    assert time.time() - process.create_time() < 30
