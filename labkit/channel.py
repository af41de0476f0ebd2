"""Talks to a node: to its daemon's API, and to its agent that runs commands.

Both listen on unix sockets inside the node's container and nowhere else. How such a socket is reached
is the engine's matter (`Reach`): through a kept-open `docker exec`, or through the embedded machine's
relay.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from labkit.errors import SwarmError

if TYPE_CHECKING:
    from docker import DockerClient

Reach = Callable[[str], socket.socket]
"""Connects to a unix socket inside one node, by its path; waits where it is not there yet."""

DAEMON = "/run/docker.sock"
AGENT = "/run/labkit-agent.sock"
# Every Docker version that the kit knows speaks it, so it need not be negotiated with each node.
API_VERSION = "1.41"

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
    return _carried(remote, framed=True, keep=raw)


def through_relay(
    address: tuple[str, int], tls: ssl.SSLContext, pid: int, path: str, *, timeout: float
) -> socket.socket:
    """Connect to a unix socket inside a container of the embedded machine (compose/machine/relay.py).

    `pid` is the container's first process, in the machine.
    """
    remote = ask_relay(address, tls, {"unix": f"/proc/{pid}/root{path}"}, timeout=timeout)
    return _carried(remote, framed=False, keep=None)


def ask_relay(
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


def _carried(remote: socket.socket, *, framed: bool, keep: object) -> socket.socket:
    """Return a plain socket whose bytes a thread of its own carries to and from `remote`."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_pump, args=(remote, theirs, framed, keep), name="labkit stream", daemon=True
    )
    thread.start()
    return ours


def _pump(remote: socket.socket, local: socket.socket, framed: bool, keep: object) -> None:
    """Carry bytes both ways, taking the frames off what an exec sends.

    One thread does both directions: a TLS connection must not be read and written at the same time.
    `keep` holds the HTTP response that owns the connection.
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
                if not framed:
                    local.sendall(data)
                    continue
                pending += data
                while len(pending) >= _HEADER.size:
                    stream, length = _HEADER.unpack_from(pending)
                    end = _HEADER.size + length
                    if len(pending) < end:
                        break
                    if stream == _STDOUT:
                        local.sendall(pending[_HEADER.size : end])
                    del pending[:end]
    except OSError:
        return
    finally:
        local.close()
        # Closing the connection ends the command's standard input, and with it the command.
        remote.close()
        del keep


def daemon(reach: Reach, *, timeout: float = 120.0) -> DockerClient:
    """Return a docker client of the node's own daemon, once that answers."""
    import docker
    from docker.transport.basehttpadapter import BaseHTTPAdapter
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = reach(DAEMON)
            self.sock.settimeout(timeout)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class Adapter(BaseHTTPAdapter):
        def __init__(self) -> None:
            super().__init__()
            self._pool = Pool("node", maxsize=4, timeout=timeout)

        def get_connection_with_tls_context(self, *_: object, **__: object) -> HTTPConnectionPool:
            return self._pool

        def request_url(self, request: Any, *_: object) -> str:
            return str(request.path_url)

        def close(self) -> None:
            self._pool.close()

    # A name that is never looked up: the adapter mounted for it opens the stream.
    node = docker.DockerClient(base_url="tcp://node:1", version=API_VERSION, timeout=int(timeout))
    node.api.trust_env = False
    node.api.mount("http://node:1", Adapter())
    return node


class Agent:
    """Runs commands on one node, many side by side, over one kept-open stream."""

    def __init__(self, node: str, reach: Reach) -> None:
        self._name = node
        self._socket = reach(AGENT)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._ready: dict[int, Future[None]] = {}
        self._closed = False
        thread = threading.Thread(target=self._read, name=f"labkit agent {node}", daemon=True)
        thread.start()

    def submit(
        self,
        argv: Sequence[str],
        *,
        netns: str | None = None,
        pid: int | None = None,
        timeout: float | None = None,
        ready: str | None = None,
    ) -> tuple[int, Future[dict[str, Any]]]:
        """Start a command; returns its number and the future of its answer (see agent.py).

        With `ready`, `wait_ready` tells when stderr holds that text.
        """
        number = next(self._numbers)
        answer: Future[dict[str, Any]] = Future()
        self._answers[number] = answer
        if ready:
            self._ready[number] = Future()
        self._send(
            {
                "id": number,
                "argv": list(argv),
                "netns": netns,
                "pid": pid,
                "timeout": timeout,
                "ready": ready,
            }
        )
        return number, answer

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command that was given `ready` has said so."""
        self._ready[number].result(timeout)

    def stop(self, number: int) -> None:
        """Interrupt a command that still runs."""
        self._send({"id": number, "stop": True})

    def close(self) -> None:
        """End the agent, and with it whatever it still runs."""
        self._closed = True
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError as problem:
            raise self._lost() from problem

    def _lost(self) -> SwarmError:
        return SwarmError(
            f"the stream to {self._name} has ended", hint="`labkit status` tells what still runs"
        )

    def _read(self) -> None:
        try:
            with self._socket.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    message = json.loads(line)
                    if message.get("ready"):
                        self._ready[message["id"]].set_result(None)
                    else:
                        ready = self._ready.pop(message["id"], None)
                        if ready and not ready.done():
                            ready.set_exception(SwarmError(f"it ended first: {message['stderr']}"))
                        self._answers.pop(message["id"]).set_result(message)
        except (OSError, ValueError):
            pass
        left: list[Future[Any]] = [*self._answers.values(), *self._ready.values()]
        for future in left:
            if not future.done():
                future.set_exception(self._lost())
        self._answers.clear()
