"""A network of its own for a machine, and whose a connection is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.engines.vm import isolation
from labkit.engines.vm.isolation import Peers

TELL = """
import os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    passed = os.read(int(sys.argv[1]), 9)
    print(os.readlink("/proc/self/ns/net"), server.getsockname()[1], passed, flush=True)
    sys.stdin.read()
"""


def started(process: subprocess.Popen[bytes]) -> tuple[str, int, str]:
    assert process.stdout
    namespace, port, passed = process.stdout.readline().decode().split()
    return namespace, int(port), passed


def may_be_apart() -> bool:
    return (
        subprocess.run([*isolation._unshare(), "true"], check=False, capture_output=True).returncode
        == 0
    )


def passing(tmp_path: Path) -> int:
    """A descriptor to be handed on."""
    file = tmp_path / "passed"
    file.write_text("passed")
    return os.open(file, os.O_RDONLY)


def test_what_listens_apart_is_not_reached_from_here(tmp_path: Path) -> None:
    fd = passing(tmp_path)
    argv = [sys.executable, "-c", TELL, str(fd)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    ours = os.readlink("/proc/self/ns/net")
    with isolation.start_apart(argv, [fd], **pipes) as first:
        theirs, port, passed = started(first)
        assert passed == "b'passed'"
        assert (theirs != ours) is may_be_apart()
        os.lseek(fd, 0, os.SEEK_SET)
        with isolation.start_beside(first.pid, argv, pass_fds=[fd], **pipes) as second:
            assert started(second)[0] == theirs
            if theirs != ours:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
            second.communicate(b"")
        first.communicate(b"")
    os.close(fd)
    assert isolation._into(os.getpid()) == []


def test_where_none_can_be_had_it_is_started_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_unshare", lambda: ["false"])
    fd = passing(tmp_path)
    argv = [sys.executable, "-c", TELL, str(fd)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with isolation.start_apart(argv, [fd], **pipes) as process:
        assert started(process)[0] == os.readlink("/proc/self/ns/net")
        process.communicate(b"")
    os.close(fd)


def test_a_connection_is_ours_by_the_kernels_table(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        open(isolation.CONNECTIONS, "rb") as table,
        socket.create_connection(door.getsockname()) as client,
    ):
        peers = Peers(table.fileno())
        own, here = client.getsockname(), door.getsockname()
        assert peers.are_own(own, here)
        assert not peers.are_own(("127.0.0.1", 1), here)  # nobody's
        lines = Path(isolation.CONNECTIONS).read_text().splitlines()
    column = next(line.split() for line in lines[1:] if line.split()[1] == isolation._in_table(own))
    assert column[7] == str(os.geteuid())
    column[7] = "4711"
    file = tmp_path / "tcp"
    file.write_text(f"{lines[0]}\n{' '.join(column)}\n")
    with file.open("rb") as changed:
        assert not Peers(changed.fileno()).are_own(own, here)  # somebody else's


def test_a_connection_that_was_closed_is_nobodys() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        open(isolation.CONNECTIONS, "rb") as table,
    ):
        with socket.create_connection(door.getsockname()) as client:
            ends = client.getsockname(), door.getsockname()
        listed = [line.split() for line in Path(isolation.CONNECTIONS).read_text().splitlines()]
        left = next(row for row in listed if row[1:3] == [isolation._in_table(end) for end in ends])
        assert (left[7], left[9]) == ("0", "0")  # as if it were root's
        assert not Peers(table.fileno()).are_own(*ends)
