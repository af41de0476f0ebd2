"""Byte streams to the unix sockets inside a node's container, handed over as plain sockets.

Through a kept-open `docker exec` that works on any engine; an engine that has a shorter way uses that
(labkit/engines/vm/relay.py).
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

_STDOUT = 1
_HEADER = struct.Struct(">BxxxL")  # stream, length: how an exec's outputs share one connection
_CHUNK = 1 << 16


def through_exec(client: DockerClient, container: str, path: str) -> socket.socket:
    """Connect to a unix socket inside a container, on any engine: through a `docker exec`.

    Where the node's daemon is still starting, the waiting happens there, without asking again.
    """
    argv = ["socat", "-", f"UNIX-CONNECT:{path},retry=1200,interval=0.1"]
    created = client.api.exec_create(container, argv, stdin=True)
    raw = client.api.exec_start(created["Id"], socket=True)
    remote: socket.socket = getattr(raw, "_sock", raw)  # type: ignore[arg-type]
    return carried(remote, framed=True, keep=raw)


def carried(remote: socket.socket, *, framed: bool = False, keep: object = None) -> socket.socket:
    """Return a plain socket whose bytes a thread of its own carries to and from `remote`.

    With `framed`, what comes has the frames of an exec's output, and only stdout is passed on. `keep`
    is held as long as the stream lives: the HTTP response that owns the connection.
    """
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_pump, args=(remote, theirs, framed, keep), name="labkit stream", daemon=True
    )
    thread.start()
    return ours


def _pump(remote: socket.socket, local: socket.socket, framed: bool, keep: object) -> None:
    """Carry bytes both ways until one side ends.

    One thread does both directions: a TLS connection must not be read and written at the same time.
    """
    pending = bytearray()
    try:
        while True:
            buffered = isinstance(remote, ssl.SSLSocket) and remote.pending() > 0
            ready = [remote] if buffered else select.select([remote, local], [], [])[0]
            if local in ready:
                data = local.recv(_CHUNK)
                if not data:
                    return
                remote.settimeout(None)
                remote.sendall(data)
            if remote in ready:
                # What has come may be half a TLS record or none of ours (a session ticket): waiting for
                # the rest would hold up what the other side waits for.
                remote.settimeout(0)
                try:
                    data = remote.recv(_CHUNK)
                except ssl.SSLWantReadError:
                    continue
                if not data:
                    return
                if framed:
                    pending += data
                    data = _unframed(pending)
                local.sendall(data)
    except OSError:
        return
    finally:
        local.close()
        # Closing the connection ends the command's standard input, and with it the command.
        remote.close()
        del keep


def _unframed(pending: bytearray) -> bytes:
    """Take the whole frames off the front of what has come; returns what stdout had in them."""
    stdout = bytearray()
    while len(pending) >= _HEADER.size:
        stream, length = _HEADER.unpack_from(pending)
        end = _HEADER.size + length
        if len(pending) < end:
            break
        if stream == _STDOUT:
            stdout += pending[_HEADER.size : end]
        del pending[:end]
    return bytes(stdout)
