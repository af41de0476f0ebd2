"""How the Docker engine of a machine is reached, and a client of it.

All ways end in a connected socket, so that there is one client (labkit/transport/daemon.py) for them.
For `ssh://` that is the system's own `ssh`, with its keys, agent, known hosts and settings: what `ssh
HOST` does in a terminal, labkit does too, and it asks for no password.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit.engines.hosts.inventory import Host
from labkit.errors import EngineError, UnknownNameError
from labkit.transport.base import NodeUnreachable
from labkit.transport.daemon import daemon

if TYPE_CHECKING:
    from docker import DockerClient

_CONNECT_SECONDS = 20
_ANSWER_SECONDS = 120.0
_CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")
_LOCAL = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Endpoint:
    """Where a Docker engine is, and with which certificates."""

    url: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def dial(self) -> socket.socket:
        """Connect to the engine; raises OSError."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return _unix(parts.path)
        assert parts.hostname
        if parts.scheme == "ssh":
            return _through(self.ssh("docker", "system", "dial-stdio"))
        plain = socket.create_connection((parts.hostname, parts.port or 2376), _CONNECT_SECONDS)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls().wrap_socket(plain, server_hostname=parts.hostname)
        except BaseException:
            plain.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context

    def ssh(self, *words: str) -> list[str]:
        """Return the command that runs another one over there; the words are the kit's own."""
        parts = urlsplit(self.url)
        argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
        argv += ["-l", parts.username] if parts.username else []
        argv += ["-p", str(parts.port)] if parts.port else []
        return [*argv, "--", str(parts.hostname), *words]

    def environment(self) -> dict[str, str]:
        """Return what an ordinary docker client needs in its environment."""
        found = {"DOCKER_HOST": self.url}
        if self.cert:
            found |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(Path(self.cert).parent)}
        return found

    def why(self, problem: BaseException) -> str:
        """Return in one line why it cannot be reached: ssh tells that on its error output only."""
        told = str(problem.args[0] if problem.args else problem)
        if urlsplit(self.url).scheme == "ssh":
            try:
                asked = subprocess.run(
                    self.ssh("docker", "version"),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=2 * _CONNECT_SECONDS,
                    check=False,
                )
                told = asked.stderr.strip() or told
            except (OSError, subprocess.TimeoutExpired) as worse:
                told = str(worse)
        return told.splitlines()[-1][-300:]


def of(host: Host) -> Endpoint:
    """Return where the engine of a host is; raises UnknownNameError for a context that is not there."""
    if host.context:
        return _of_context(host.context)
    if host.tls:
        ca, cert, key = (str(Path(host.tls) / name) for name in _CERTIFICATES)
        return Endpoint(str(host.docker), ca, cert, key)
    return Endpoint(str(host.docker))


def _of_context(name: str) -> Endpoint:
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        context = ContextAPI.get_context(name)
    except (DockerException, OSError, ValueError) as problem:
        raise EngineError(
            f"the docker context {name!r} cannot be read: {problem}", hint="docker context ls"
        ) from problem
    if context is None:
        known = [found.Name for found in ContextAPI.contexts()]
        raise UnknownNameError("docker context", name, known, hint=f"docker context create {name} …")
    tls = context.TLSConfig
    cert, key = (tls and tls.cert) or (None, None)
    return Endpoint(context.Host or _LOCAL, tls.ca_cert if tls else None, cert, key)


def client(name: str, endpoint: Endpoint) -> DockerClient:
    """Return a client of an engine that answers; raises EngineError.

    Its requests raise NodeUnreachable and DaemonError.
    """
    made = daemon(name, lambda _: endpoint.dial(), timeout=_ANSWER_SECONDS)
    try:
        made.ping()
    except NodeUnreachable as problem:
        made.close()
        raise EngineError(
            f"{name}: no Docker engine answers at {endpoint.url}: {endpoint.why(problem)}",
            hint=_next_step(endpoint),
        ) from problem
    return made


def _next_step(endpoint: Endpoint) -> str:
    if endpoint.url.startswith("ssh://"):
        return f"this has to work without a question: {' '.join(endpoint.ssh('docker', 'version'))}"
    return f"this has to work: docker --host {endpoint.url} version"


def _unix(path: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(_CONNECT_SECONDS)
        found.connect(path)
    except BaseException:
        found.close()
        raise
    return found


def _through(argv: list[str]) -> socket.socket:
    """Return a socket whose other end is a program's input and output; it ends with the socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for labkit, which still has to clean up over there
            )
        except BaseException:
            ours.close()
            raise
    threading.Thread(target=process.wait, name="labkit ssh", daemon=True).start()
    return ours
