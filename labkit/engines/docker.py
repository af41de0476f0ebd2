"""Reaches the Docker engine that this machine has: DOCKER_HOST, the docker context, or the socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from labkit.errors import EngineError

if TYPE_CHECKING:
    from docker import DockerClient

_FIRST_ANSWER_SECONDS = 10  # is anybody there?
_ANSWER_SECONDS = 120
_OLDEST_API = "1.41"  # Docker 20.10's


def connect() -> DockerClient:
    """Return a client of the engine; raises EngineError where none answers or it cannot run Swarm."""
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException

    where = os.environ.get("DOCKER_HOST", "")

    def client_of(version: str) -> DockerClient:
        nonlocal where
        if where:
            client = docker.DockerClient.from_env(version=version, timeout=_FIRST_ANSWER_SECONDS)
        else:
            context = ContextAPI.get_current_context()
            where = context.Host or "unix:///var/run/docker.sock"
            tls = context.TLSConfig or False
            client = docker.DockerClient(
                base_url=where, version=version, tls=tls, timeout=_FIRST_ANSWER_SECONDS
            )
        # Before the first request: a REQUESTS_CA_BUNDLE is not for an engine with its own CA.
        client.api.trust_env = False
        return client

    try:
        spoken = client_of(_OLDEST_API).api.version(api_version=False)["ApiVersion"]
        client = client_of(spoken)
        info = client.info()
        client.api.timeout = _ANSWER_SECONDS
    except (DockerException, OSError) as problem:
        raise EngineError(
            f"no Docker engine answers at {where or 'the default socket'}: {_last(problem)}",
            hint="start Docker, or use the embedded machine: labkit up --engine vm",
        ) from problem
    except Exception as problem:  # requests' own errors come through the SDK unwrapped
        raise EngineError(
            f"the Docker engine at {where} does not answer: {_last(problem)}",
            hint="check DOCKER_HOST and DOCKER_CERT_PATH, or use: labkit up --engine vm",
        ) from problem
    refuse_unfit(info)
    return client


def refuse_unfit(info: dict[str, object]) -> None:
    """Raise EngineError for an engine that says of itself that it cannot run a swarm's nodes."""
    vm = "use the embedded machine: labkit up --engine vm"
    if info.get("OSType") != "linux":
        raise EngineError(
            f"the Docker engine runs {info.get('OSType')} containers, expected linux", hint=vm
        )
    options = info.get("SecurityOptions") or []
    assert isinstance(options, list)
    for option, what in (("rootless", "rootless"), ("userns", "run with user namespaces")):
        if any(str(o).startswith(f"name={option}") for o in options):
            raise EngineError(
                f"the Docker engine is {what}, so it has no privileged containers, which a node is",
                hint=vm,
            )


def environment() -> dict[str, str]:
    """Return what an ordinary docker client has in its environment to reach this engine."""
    names = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT")
    return {name: os.environ[name] for name in names if name in os.environ}


def _last(problem: BaseException) -> str:
    return str(problem).splitlines()[-1][-300:] if str(problem) else type(problem).__name__
