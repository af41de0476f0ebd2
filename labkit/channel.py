"""Talks to a node through its container: to the daemon's API, and to the agent that runs commands.

Both go through a `docker exec` that is kept open, so nothing listens anywhere and the same way works on
every engine. Under emulation one exec costs about a second; what goes through it afterwards is cheap.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from labkit.errors import SwarmError

if TYPE_CHECKING:
    from docker import DockerClient

_STDOUT, _STDERR = 1, 2
_HEADER = struct.Struct(">BxxxL")  # stream, length: how an exec's outputs share one connection
_CHUNK = 1 << 16

# The node's daemon may still be starting: the waiting happens there, without asking again and again.
DAEMON = ("socat", "-", "UNIX-CONNECT:/var/run/docker.sock,retry=1200,interval=0.1")
AGENT = ("python3", "/usr/local/lib/labkit/agent.py")
# Every Docker version that the kit knows speaks it, so it need not be negotiated with each node.
API_VERSION = "1.41"


def open_stream(client: DockerClient, container: str, argv: Sequence[str]) -> socket.socket:
    """Start a command in a container and return a socket that is its standard input and output."""
    created = client.api.exec_create(container, list(argv), stdin=True)
    raw = client.api.exec_start(created["Id"], socket=True)
    remote = getattr(raw, "_sock", raw)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_pump, args=(remote, theirs, raw), name=f"labkit {argv[0]} {container}", daemon=True
    )
    thread.start()
    return ours


def _pump(remote: socket.socket, local: socket.socket, keep: object) -> None:
    """Carry bytes both ways, taking the frames off what comes from the container.

    One thread does both directions: a TLS connection must not be read and written at the same time.
    `keep` holds the HTTP response that owns the connection.
    """
    pending = bytearray()
    try:
        remote.settimeout(None)
        while True:
            buffered = isinstance(remote, ssl.SSLSocket) and remote.pending() > 0
            ready = [remote] if buffered else select.select([remote, local], [], [])[0]
            if local in ready:
                data = local.recv(_CHUNK)
                if not data:
                    return
                remote.sendall(data)
            if remote in ready:
                data = remote.recv(_CHUNK)
                if not data:
                    return
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


def daemon(client: DockerClient, container: str, *, timeout: float = 120.0) -> DockerClient:
    """Return a docker client of the node's own daemon, once that answers."""
    import docker
    from docker.transport.basehttpadapter import BaseHTTPAdapter
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = open_stream(client, container, DAEMON)
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

    def __init__(self, client: DockerClient, container: str) -> None:
        self._name = container
        self._socket = open_stream(client, container, AGENT)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._ready: dict[int, Future[None]] = {}
        self._closed = False
        thread = threading.Thread(target=self._read, name=f"labkit agent {container}", daemon=True)
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
