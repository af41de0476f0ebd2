"""Talks to the relay inside an embedded machine (compose/machine/relay.py), over TLS on loopback."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

from labkit.transport.streams import carried


def through_relay(
    address: tuple[str, int], tls: ssl.SSLContext, pid: int, path: str, *, timeout: float
) -> socket.socket:
    """Connect to a unix socket inside a container; `pid` is its first process, in the machine."""
    return carried(ask(address, tls, {"unix": f"/proc/{pid}/root{path}"}, timeout=timeout))


def ask(
    address: tuple[str, int], tls: ssl.SSLContext, request: dict[str, Any], *, timeout: float
) -> ssl.SSLSocket:
    """Send the relay a request and return the connection, for its answer."""
    plain = socket.create_connection(address, timeout)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        remote = tls.wrap_socket(plain, server_hostname=address[0])
        remote.sendall(json.dumps(request).encode() + b"\n")
    except BaseException:
        plain.close()
        raise
    return remote
