"""A docker client of the daemon inside a node, over a stream instead of an address."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from labkit.transport.base import API_VERSION, DAEMON, DaemonError, NodeUnreachable, Reach, Through
from labkit.transport.silence import hang_up_after_silence

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.errors import APIError
    from requests import PreparedRequest, Response

log = logging.getLogger(__name__)


def daemon(
    node: str, reach: Reach, *, timeout: float = 120.0, through: Through | None = None
) -> DockerClient:
    """Return a docker client of a node's own daemon, once that answers.

    With `through`, every request of the client is handed to that. Its requests raise DaemonError where
    the daemon refuses or fails, NodeUnreachable where it does not answer.
    """
    import docker
    from docker.errors import APIError
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
            self._pool = self._empty_pool()

        def _empty_pool(self) -> HTTPConnectionPool:
            return Pool("node", maxsize=4, timeout=timeout)

        def get_connection_with_tls_context(self, *_: object, **__: object) -> HTTPConnectionPool:
            return self._pool

        def request_url(self, request: Any, *_: object) -> str:
            return str(request.path_url)

        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            plain = super().send
            began = time.monotonic()
            try:
                if through is None:
                    response = plain(request, *args, **kwargs)
                else:
                    response = through(request, lambda: plain(request, *args, **kwargs))
            except OSError as problem:  # those of requests are OSErrors too
                raise NodeUnreachable(node, f"{type(problem).__name__}: {problem}"[:300]) from problem
            took = time.monotonic() - began
            log.debug("%s %s: %d in %.3f s", request.method, request.url, response.status_code, took)
            return response

        def close(self) -> None:
            self._pool.close()
            self._pool = self._empty_pool()

    # A name that is never looked up: the adapter mounted for it opens the stream.
    client = docker.DockerClient(base_url="tcp://node:1", version=API_VERSION, timeout=int(timeout))
    client.api.trust_env = False
    client.api.mount("http://node:1", Adapter())
    api: Any = client.api
    refused = api._raise_for_status

    def raise_for_status(response: Response) -> None:
        try:
            refused(response)
        except APIError as problem:
            raise _refusal(node, response.status_code, problem) from problem

    hang_up_after_silence(api)
    # The one place through which the SDK turns an answer into an error.
    api._raise_for_status = raise_for_status
    return client


def _refusal(node: str, status: int, problem: APIError) -> DaemonError:
    """Return the kit's error, which is the SDK's own too: the SDK catches some of its errors."""
    told = str(problem.explanation or problem)
    error = _refused_as(type(problem))(node, status, told)
    vars(error).update(response=problem.response, explanation=problem.explanation)
    return error


def _refused_as(kind: type[APIError]) -> type[DaemonError]:
    """Return a class that is DaemonError and an error of the SDK."""

    def text(self: DaemonError) -> str:
        return f"{self.args[0]}\nNext step: {self.hint}"

    return type(DaemonError.__name__, (DaemonError, kind), {"__str__": text})
