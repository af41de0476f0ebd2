"""Talks to a node: to its daemon's API, and to its agent that runs commands.

Both listen on unix sockets inside the node's container and nowhere else. How such a socket is reached
is the engine's matter (`Reach`): through a kept-open `docker exec`, or through the embedded machine's
relay.

All that a lab asks of its swarm goes through a node's `Link`, so that is where it can be recorded
(`labkit.recording`) and where answers can come from a record instead (`labkit.replay`).
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from labkit.errors import SwarmError

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import PreparedRequest, Response

Reach = Callable[[str], socket.socket]
"""Connects to a unix socket inside one node, by its path; waits where it is not there yet."""

Through = Callable[["PreparedRequest", Callable[[], "Response"]], "Response"]
"""Carries one request to a daemon's API: given the request and what would send it."""

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


def daemon(reach: Reach, *, timeout: float = 120.0, through: Through | None = None) -> DockerClient:
    """Return a docker client of the node's own daemon, once that answers.

    With `through`, every request of the client is handed to that.
    """
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

        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            plain = super().send
            if through is None:
                return plain(request, *args, **kwargs)
            return through(request, lambda: plain(request, *args, **kwargs))

        def close(self) -> None:
            self._pool.close()

    # A name that is never looked up: the adapter mounted for it opens the stream.
    node = docker.DockerClient(base_url="tcp://node:1", version=API_VERSION, timeout=int(timeout))
    node.api.trust_env = False
    node.api.mount("http://node:1", Adapter())
    return node


class Command(NamedTuple):
    """A command for a node's agent; see agent.py for what its words mean there."""

    argv: tuple[str, ...]
    place: str
    """What a person calls the spot; the agent needs only the next two."""
    netns: str | None = None
    pid: int | None = None
    timeout: float | None = None
    ready: str | None = None


class Runs(Protocol):
    """What runs commands on one node: `Agent`, one that keeps a record, one that reads a record."""

    def submit(self, command: Command) -> tuple[int, Future[dict[str, Any]]]:
        """Start a command; returns its number and the future of its answer."""
        ...

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command that was given `ready` has said so."""
        ...

    def stop(self, number: int) -> None:
        """Interrupt a command that still runs."""
        ...

    def close(self) -> None:
        """End the stream."""
        ...


class Link(Protocol):
    """Everything that is between a lab and one of its nodes, time included."""

    @property
    def agent(self) -> Runs:
        """What runs commands on the node."""
        ...

    @property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        ...

    def pause(self, seconds: float) -> None:
        """Let the node work for so long."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def close(self) -> None:
        """Close what is kept open to the node."""
        ...


class Live:
    """The link to a node that runs."""

    def __init__(self, node: str, reach: Reach) -> None:
        self.node, self.reach = node, reach

    @cached_property
    def agent(self) -> Agent:
        """The kept-open agent, opened when it is first asked for."""
        return Agent(self.node, self.reach)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return daemon(self.reach)

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def now(self) -> float:
        """The monotonic clock of this machine."""
        return time.monotonic()

    def close(self) -> None:
        """Close what was opened."""
        for name in ("agent", "docker"):
            if name in self.__dict__:
                getattr(self, name).close()


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

    def submit(self, command: Command) -> tuple[int, Future[dict[str, Any]]]:
        """Start a command; returns its number and the future of its answer (see agent.py).

        With `ready`, `wait_ready` tells when stderr holds that text.
        """
        number = next(self._numbers)
        answer: Future[dict[str, Any]] = Future()
        self._answers[number] = answer
        if command.ready:
            self._ready[number] = Future()
        words = {name: value for name, value in command._asdict().items() if name != "place"}
        self._send({"id": number, **words})
        return number, answer

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command that was given `ready` has said so."""
        try:
            self._ready[number].result(timeout)
        finally:
            del self._ready[number]

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
            raise lost(self._name) from problem

    def _read(self) -> None:
        try:
            with self._socket.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    message = json.loads(line)
                    if message.get("ready"):
                        self._ready[message["id"]].set_result(None)
                    else:
                        # Left there for who asks later: it may end before anybody waits.
                        ready = self._ready.get(message["id"])
                        if ready and not ready.done():
                            ready.set_exception(ended_first(message["stderr"]))
                        self._answers.pop(message["id"]).set_result(message)
        except (OSError, ValueError):
            pass
        left: list[Future[Any]] = [*self._answers.values(), *self._ready.values()]
        for future in left:
            if not future.done():
                future.set_exception(lost(self._name))
        self._answers.clear()


def lost(node: str) -> SwarmError:
    """The stream to a node has ended."""
    return SwarmError(f"the stream to {node} has ended", hint="`labkit status` tells what still runs")


def ended_first(stderr: str) -> SwarmError:
    """A command ended before it was ready."""
    return SwarmError(f"it ended first: {stderr}")
