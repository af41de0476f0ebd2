"""Runs a command for who connects to a socket: `labkit exec` is at the other end.

Words: the socket's path, `terminal` or `pipes`, the command. Both sides send frames, each a kind and a
length (five bytes) and so many bytes:

    to the command     0 input, 1 end of the input, 2 rows and columns of the terminal, 3 interrupt
    from the command   1 output, 2 errors, 0 its exit code as text, the last frame

When the connection ends, the command is ended.
"""

# Under emulation an import costs as much as a command, so there are few, and no thread.
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import time

INPUT, END, SIZE, INTERRUPT = range(4)
CODE, OUTPUT, ERRORS = range(3)
HEAD = struct.Struct(">BL")
CHUNK = 1 << 15
POLITE = ((signal.SIGINT, 2), (signal.SIGHUP, 1), (signal.SIGKILL, 1))  # seconds for each

_LEFT = os.WEXITED | os.WNOHANG | os.WNOWAIT  # has it ended? without taking its exit code

path, kind, *argv = sys.argv[1:]


def connected() -> socket.socket:
    """Say that somebody may connect, and wait for it."""
    before = os.umask(0o177)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.umask(before)
    server.listen()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, give_up)
    print("listening", file=sys.stderr, flush=True)
    peer, _ = server.accept()
    server.close()
    os.unlink(path)
    return peer


def give_up(*_: object) -> None:
    """End before anybody has connected."""
    os.unlink(path)
    os._exit(1)


def begin() -> tuple[int, int, dict[int, int]]:
    """Start the command; returns its process, where its input goes, and whence its output comes."""
    if kind == "terminal":
        ours, theirs = os.openpty()
        child = os.fork()
        if not child:
            become([theirs, theirs, theirs])
        os.close(theirs)
        return child, ours, {ours: OUTPUT}
    (inner, to), (out, outer), (err, error) = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        become([inner, outer, error])
    for end in (inner, outer, error):
        os.close(end)
    return child, to, {out: OUTPUT, err: ERRORS}


def become(ends: list[int]) -> None:
    """In the new process: be the command, in a session of its own."""
    for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):  # by the agent's shell, by Python
        signal.signal(ignored, signal.SIG_DFL)
    os.setsid()
    for number, end in enumerate(ends):
        os.dup2(end, number)
    if kind == "terminal":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    try:
        os.execvp(argv[0], argv)
    except OSError as problem:
        os.write(2, f"labkit: {problem}\n".encode())
    os._exit(127)


def send(what: int, data: bytes) -> None:
    peer.sendall(HEAD.pack(what, len(data)) + data)


def stop(*_: object) -> None:
    """End the command, politely first, and this program."""
    for number, patience in POLITE:
        try:
            os.killpg(child, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                os._exit(0)
            time.sleep(0.05)
    os._exit(0)


class Input:
    """What the caller sends: frames that are not whole yet, and bytes that wait for the command."""

    def __init__(self, to: int) -> None:
        self.to, self.frames, self.waiting, self.ended = to, bytearray(), bytearray(), False
        os.set_blocking(to, False)

    def take(self, data: bytes) -> None:
        """Take what has come from the caller."""
        self.frames += data
        while len(self.frames) >= HEAD.size:
            what, length = HEAD.unpack_from(self.frames)
            end = HEAD.size + length
            if len(self.frames) < end:
                return
            self.obey(what, bytes(self.frames[HEAD.size : end]))
            del self.frames[:end]

    def obey(self, what: int, data: bytes) -> None:
        if what == INPUT:
            self.waiting += data
        elif what == END:
            self.ended = True
        elif what == SIZE:
            rows, columns = struct.unpack(">HH", data)
            fcntl.ioctl(self.to, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        elif what == INTERRUPT and not os.waitid(os.P_PID, child, _LEFT):
            os.killpg(child, signal.SIGINT)

    def give(self) -> None:
        """Give the command what waits for it; its input is closed after the last byte."""
        try:
            if self.waiting:
                del self.waiting[: os.write(self.to, self.waiting)]
        except BlockingIOError:
            return
        except OSError:  # it has closed its input, or has ended
            self.waiting.clear()
        if self.ended and not self.waiting and self.to >= 0 and kind != "terminal":
            os.close(self.to)
            self.to = -1


def follow() -> int:
    """Carry bytes both ways until the command has ended; returns its wait status."""
    fed = Input(to)
    while outputs:
        sources: list[int] = list(outputs)
        if len(fed.waiting) < CHUNK:
            sources.append(peer.fileno())
        sinks = [fed.to] if fed.waiting else []
        ready, free, _ = select.select(sources, sinks, [], 0.5)
        if not ready and not free:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status  # what it has left behind still holds its output
        for source in ready:
            if source == peer.fileno():
                data = peer.recv(CHUNK)
                if not data:
                    stop()
                fed.take(data)
                continue
            try:
                data = os.read(source, CHUNK)
            except OSError:  # the terminal's last process has ended
                data = b""
            if data:
                send(outputs[source], data)
            else:
                del outputs[source]
        fed.give()
    return os.waitpid(child, 0)[1]


peer = connected()
child, to, outputs = begin()
while os.getpgid(child) != child:
    time.sleep(0.001)  # until then it could not be interrupted
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
try:
    code = os.waitstatus_to_exitcode(follow())
    send(CODE, str(code if code >= 0 else 128 - code).encode())
except OSError:  # the caller is gone
    stop()
