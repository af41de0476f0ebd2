"""The engine `docker`: the Docker daemon that this machine has, by DOCKER_HOST, context or socket."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from labkit.engines import OTHER_ENGINE, images
from labkit.engines.base import LAB_LABEL, Acquired, Check, Connection, Recipe, SwarmSpec
from labkit.errors import EngineError, LabkitError
from labkit.transport.base import API_VERSION
from labkit.transport.streams import through_exec

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_ANSWER_SECONDS = 10  # is anybody there?
_ANSWER_SECONDS = 120
_ENVIRONMENT = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT")


class DockerEngine:
    """The Docker daemon of this machine. Each swarm is made on it anew."""

    kind = "docker"

    def refusal(self) -> str:
        """Return why no daemon can be used, in one line; empty where one answers and can run Swarm."""
        try:
            connect().close()
        except EngineError as problem:
            return str(problem).splitlines()[0]
        return ""

    def label(self, lab: str) -> str:
        """Return what a lab is called in the labels: many labs share the daemon."""
        return lab

    def acquire(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], *, fresh: bool, progress: Progress
    ) -> Acquired[T]:
        """Put the node image on the daemon and make the swarm."""
        client = connect()
        images.ensure(client, spec.docker, progress)
        answered = time.monotonic()
        return Acquired(recipe.make(_connection(lab, client)), answered, restored=False)

    def find(self, lab: str) -> Connection | None:
        """Return the daemon where it has containers of a lab."""
        try:
            client = connect()
        except EngineError:
            return None
        if client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={lab}"}):
            return _connection(lab, client)
        client.close()
        return None

    def spec_of(self, lab: str) -> SwarmSpec | None:
        """Nothing is kept of what a lab was asked to be."""
        return None

    def labs(self) -> list[str]:
        """List the labs that have a container or a network on the daemon."""
        try:
            client = connect()
        except EngineError:
            return []
        chosen: dict[str, str | list[str] | bool] = {"label": LAB_LABEL}
        found = {box.labels[LAB_LABEL] for box in client.containers.list(all=True, filters=chosen)}
        networks = client.networks.list(filters={"label": LAB_LABEL})
        found |= {network.attrs["Labels"][LAB_LABEL] for network in networks}
        client.close()
        return sorted(found)

    def remove(self, lab: str) -> bool:
        """Remove a lab's containers with their volumes, and its network."""
        try:
            client = connect()
        except EngineError:
            return False
        label = f"{LAB_LABEL}={lab}"
        boxes = client.containers.list(all=True, filters={"label": label})
        networks = client.networks.list(filters={"label": label})
        if boxes:
            with ThreadPoolExecutor(len(boxes)) as pool:
                list(pool.map(lambda box: box.remove(v=True, force=True), boxes))
        for network in networks:
            network.remove()
        client.close()
        return bool(boxes or networks)

    def sweep(self) -> None:
        """All that a lab has on the daemon carries its label, so `remove` finds it."""

    def crash_log(self, lab: str) -> str | None:
        """There is no machine that could have exited."""
        return None

    def checkpoints(self, lab: str) -> None:
        """A daemon with containers cannot be written down whole."""
        return

    def accel(self) -> None:
        """There is no machine to accelerate."""
        return

    def facts(self) -> dict[str, str]:
        """Return the daemon's version."""
        client = connect()
        version = str(client.version()["Version"])
        client.close()
        return {"engine": f"{self.kind}, {version}"}

    def examine(self) -> list[Check]:
        """Look whether a daemon answers, and which."""
        name = "Docker engine"
        try:
            client = connect()
        except LabkitError as problem:
            return [Check(name, False, problem.args[0], problem.hint)]
        version = client.version()["Version"]
        client.close()
        return [Check(name, True, f"Docker {version} answers")]


def _connection(lab: str, client: DockerClient) -> Connection:
    return Connection(
        kind=DockerEngine.kind,
        accel=None,
        client=client,
        environment={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        label=lab,
        open_socket=lambda container, _, path: through_exec(client, container, path),
    )


def connect() -> DockerClient:
    """Return a client of the daemon; raises EngineError where none answers or it cannot run Swarm."""
    from docker.errors import DockerException

    where, _ = _address()
    try:
        spoken = _client(API_VERSION).api.version(api_version=False)["ApiVersion"]
        client = _client(spoken)
        info = client.info()
        client.api.timeout = _ANSWER_SECONDS
    except (DockerException, OSError) as problem:
        raise EngineError(
            f"no Docker engine answers at {where or 'the default socket'}: {_last_line(problem)}",
            hint=f"start Docker, or {OTHER_ENGINE}",
        ) from problem
    except Exception as problem:  # requests' own errors come through the SDK unwrapped
        raise EngineError(
            f"the Docker engine at {where} does not answer: {_last_line(problem)}",
            hint="check DOCKER_HOST and DOCKER_CERT_PATH, or use: labkit up --engine vm",
        ) from problem
    refuse_unfit(info)
    log.debug("Docker %s answers at %s", info.get("ServerVersion"), where)
    return client


def _address() -> tuple[str, object]:
    """Return where the daemon is, and the TLS settings of the docker context that names it."""
    from docker.context import ContextAPI

    if named := os.environ.get("DOCKER_HOST"):
        return named, None
    context = ContextAPI.get_current_context()
    return context.Host or "unix:///var/run/docker.sock", context.TLSConfig or False


def _client(version: str) -> DockerClient:
    import docker

    where, tls = _address()
    if os.environ.get("DOCKER_HOST"):
        client = docker.DockerClient.from_env(version=version, timeout=_FIRST_ANSWER_SECONDS)
    else:
        client = docker.DockerClient(
            base_url=where,
            version=version,
            tls=tls,  # type: ignore[arg-type]
            timeout=_FIRST_ANSWER_SECONDS,
        )
    # Before the first request: a REQUESTS_CA_BUNDLE is not for a daemon with its own CA.
    client.api.trust_env = False
    return client


def refuse_unfit(info: dict[str, object]) -> None:
    """Raise EngineError for a daemon that says of itself that it cannot run a swarm's nodes."""
    if info.get("OSType") != "linux":
        raise EngineError(
            f"the Docker engine runs {info.get('OSType')} containers, expected linux", hint=OTHER_ENGINE
        )
    options = info.get("SecurityOptions") or []
    assert isinstance(options, list)
    for option, what in (("rootless", "rootless"), ("userns", "run with user namespaces")):
        if any(str(o).startswith(f"name={option}") for o in options):
            raise EngineError(
                f"the Docker engine is {what}, so it has no privileged containers, which a node is",
                hint=OTHER_ENGINE,
            )


def _last_line(problem: BaseException) -> str:
    return str(problem).splitlines()[-1][-300:] if str(problem) else type(problem).__name__
