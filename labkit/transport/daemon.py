"""A docker client of the daemon inside a node, over a stream instead of an address."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from labkit.transport.base import API_VERSION, DAEMON, Reach, Through

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import PreparedRequest, Response

log = logging.getLogger(__name__)


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
            began = time.monotonic()
            if through is None:
                response = plain(request, *args, **kwargs)
            else:
                response = through(request, lambda: plain(request, *args, **kwargs))
            took = time.monotonic() - began
            log.debug("%s %s: %d in %.3f s", request.method, request.url, response.status_code, took)
            return response

        def close(self) -> None:
            self._pool.close()

    # A name that is never looked up: the adapter mounted for it opens the stream.
    node = docker.DockerClient(base_url="tcp://node:1", version=API_VERSION, timeout=int(timeout))
    node.api.trust_env = False
    node.api.mount("http://node:1", Adapter())
    return node
