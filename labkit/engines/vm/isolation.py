"""Keeps a lab's machine apart from other people on the same computer.

The machine and its proxy have a network of their own (a network namespace), so that what QEMU listens
on is reached through the proxy alone; the proxy asks the kernel whose each connection is. Where this
user may not have such a network, the machine listens on loopback, as the proxy does, and TLS alone
keeps others out.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from labkit import paths
from labkit.errors import EngineError

log = logging.getLogger(__name__)

Address = tuple[str, int]

CONNECTIONS = "/proc/net/tcp"
"""The kernel's table of the connections in a network, as of the process that opens it."""

_LOOKS = 5  # at the table, until a connection is taken for gone

# Brings loopback up (SIOCSIFFLAGS; IFF_UP), gives up the right to do so (PR_CAP_AMBIENT_CLEAR_ALL),
# tells on a descriptor that it is up, and becomes another program.
_LOOPBACK_UP = """
import ctypes, fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 1))
ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)
os.write(int(sys.argv[1]), b"up")
os.close(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_apart(
    argv: Sequence[str], pass_fds: Sequence[int], **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program in a network of its own, in this process's where none can be had.

    `options` are those of Popen. Returns when the network is there. Raises EngineError where none can
    be had for a machine whose keys other users have, too.
    """
    ready, told = os.pipe()
    with open(ready, "rb") as answer:
        up = [sys.executable, "-I", "-S", "-c", _LOOPBACK_UP, str(told)]
        fds = [*pass_fds, told]
        try:
            process = subprocess.Popen([*_unshare(), *up, *argv], pass_fds=fds, **options)
        finally:
            os.close(told)
        if answer.read():
            return process
    process.wait()
    if paths.shared():
        raise EngineError(
            "a machine out of a shared state needs a network of its own, since everybody here has its "
            f"keys, and this user may not make one (code {process.returncode})",
            hint="sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone: both above 0; on "
            "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0",
        )
    log.info("no network of its own can be had (code %d)", process.returncode)
    return subprocess.Popen(argv, pass_fds=pass_fds, **options)


def start_beside(pid: int, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program in the network of a process. `options` are those of Popen."""
    return subprocess.Popen([*_into(pid), *argv], **options)


def _unshare() -> list[str]:
    """Return the words that give a program a network of its own."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    return ["unshare", "--user", "--net", "--map-current-user", "--keep-caps"]


def _into(pid: int) -> list[str]:
    """Return the words that start a program in a process's network; none where it is this one's."""
    if _namespace(pid, "net") == _namespace("self", "net"):
        return []
    entering = ["nsenter", "--target", str(pid), "--net"]
    if _namespace(pid, "user") != _namespace("self", "user"):
        entering += ["--user", "--preserve-credentials"]
    return [*entering, "--"]


def _namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


class Peers:
    """Tells whose a connection on loopback is, by the kernel's table of connections."""

    def __init__(self, table: int) -> None:
        """Read the table from a descriptor that was opened where the clients are."""
        self._table = table

    def are_own(self, client: Address, door: Address) -> bool:
        """Whether the client's end of a connection belongs to this user, or to root.

        One that is not there any more belongs to nobody, and neither does one that its program has
        closed: the kernel lists it for a while with no file (inode 0), and as root's. The table is
        given page by page, and others come and go meanwhile: what was not seen is looked for again.
        """
        ends = [_in_table(client), _in_table(door)]
        for _ in range(_LOOKS):
            for fields in map(str.split, self._lines()):
                if fields[1:3] == ends and fields[9] != "0":
                    return int(fields[7]) in (os.geteuid(), 0)
        return False

    def _lines(self) -> list[str]:
        os.lseek(self._table, 0, os.SEEK_SET)
        content = b""
        while data := os.read(self._table, 1 << 16):
            content += data
        return content.decode("ascii").splitlines()[1:]


def _in_table(address: Address) -> str:
    """Write an address as the table has it: hexadecimal, the bytes of the IPv4 address as in memory."""
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
