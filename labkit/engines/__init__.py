"""Where the nodes of a swarm run. Every engine ends in the same thing, a `docker.DockerClient`.

docker   the engine that this machine has
vm       a private engine in a virtual machine that labkit builds: no Docker, no root
auto     docker if one answers and can run Swarm, else vm

A lab whose answers come from evidence says that its engine is `replay`; that one starts nothing.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.engines import docker, images
from labkit.engines.vm import process as vm
from labkit.errors import EngineError, UnknownNameError, UsageError
from labkit.progress import Progress
from labkit.transport import live as channel

if TYPE_CHECKING:
    from docker import DockerClient

KINDS = ("auto", "docker", "vm")
LAB_LABEL = "labkit.lab"


@dataclass(frozen=True)
class Engine:
    """An engine that answers, and what an ordinary docker client needs to reach it."""

    kind: str
    accel: str | None
    client: DockerClient
    environment: Mapping[str, str]
    label: str
    """What the lab is called in the labels on this engine."""
    open_socket: Callable[[str, int, str], socket.socket]
    """Connects to a unix socket in a container: its name, its first process, the socket's path."""

    def reach(self, container: str, pid: int) -> channel.Reach:
        """Return what connects to the unix sockets of one container."""
        return functools.partial(self.open_socket, container, pid)


def of_machine(machine: vm.Machine) -> Engine:
    """Return the engine of an embedded machine."""
    return Engine(
        kind="vm",
        accel=machine.accel,
        client=machine.client(),
        environment=machine.environment,
        label=vm.INNER_LAB,
        open_socket=lambda _, pid, path: machine.reach(pid, path),
    )


def _of_docker(lab: str, client: DockerClient) -> Engine:
    return Engine(
        kind="docker",
        accel=None,
        client=client,
        environment=docker.environment(),
        label=lab,
        open_socket=lambda container, _, path: channel.through_exec(client, container, path),
    )


def choose(kind: str) -> tuple[str, str]:
    """Return the engine that a wish comes to ("docker" or "vm"), and why."""
    if kind == "replay":
        raise UsageError(
            "a replay has no engine that could be started: its answers come from evidence",
            hint="labkit run --replay labs/evidence, or in a notebook: labkit.attach(replay=True)",
        )
    if kind not in KINDS:
        raise UnknownNameError("engine", kind, KINDS)
    if kind != "auto":
        return kind, "asked for"
    try:
        docker.connect().close()
    except EngineError as problem:
        return "vm", str(problem).splitlines()[0]
    return "docker", "a Docker engine answers"


def open_docker(lab: str, docker_version: str, progress: Progress) -> Engine:
    """Return this machine's own engine for a new lab, with the node image on it."""
    client = docker.connect()
    images.ensure(client, docker_version, progress)
    return _of_docker(lab, client)


def find(lab: str) -> Engine | None:
    """Find the engine that runs a lab, by its machine or by the labels on the Docker engine."""
    machine = vm.find(lab)
    if machine:
        return of_machine(machine)
    try:
        client = docker.connect()
    except EngineError:
        return None
    if client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={lab}"}):
        return _of_docker(lab, client)
    client.close()
    return None


def labs() -> dict[str, str]:
    """List the labs of this machine: name -> the engine they run on."""
    found = {machine.lab: "vm" for machine in vm.found()}
    try:
        client = docker.connect()
    except EngineError:
        return found
    chosen: dict[str, str | list[str] | bool] = {"label": LAB_LABEL}
    for box in client.containers.list(all=True, filters=chosen):
        found.setdefault(box.labels[LAB_LABEL], "docker")
    for network in client.networks.list(filters={"label": LAB_LABEL}):
        found.setdefault(network.attrs["Labels"][LAB_LABEL], "docker")
    client.close()
    return found
