"""Where the nodes of a swarm run. Every engine ends in the same thing, a `docker.DockerClient`.

docker   the engine that this machine has
vm       a private engine in a virtual machine that labkit builds: no Docker, no root
auto     docker if one answers and can run Swarm, else vm
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.engines import bootstrap, docker, images, vm
from labkit.errors import EngineError, UnknownNameError
from labkit.progress import Progress

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


def _of_machine(machine: vm.Machine) -> Engine:
    return Engine("vm", machine.accel, machine.client(), machine.environment)


def choose(kind: str) -> tuple[str, str]:
    """Return the engine that a wish comes to ("docker" or "vm"), and why."""
    if kind not in KINDS:
        raise UnknownNameError("engine", kind, KINDS)
    if kind != "auto":
        return kind, "asked for"
    try:
        docker.connect().close()
    except EngineError as problem:
        return "vm", str(problem).splitlines()[0]
    return "docker", "a Docker engine answers"


def open_for(lab: str, kind: str, docker_version: str, *, nodes: int, progress: Progress) -> Engine:
    """Return an engine for a new lab, with the node image on it; starts the machine where it is vm."""
    bootstrap.release(docker_version)
    chosen, _ = choose(kind)
    if chosen == "vm":
        return _of_machine(vm.up(lab, docker_version, nodes=nodes, progress=progress))
    client = docker.connect()
    images.ensure(client, docker_version, progress)
    return Engine("docker", None, client, docker.environment())


def find(lab: str) -> Engine | None:
    """Find the engine that runs a lab, by its machine or by the labels on the Docker engine."""
    machine = vm.find(lab)
    if machine:
        return _of_machine(machine)
    try:
        client = docker.connect()
    except EngineError:
        return None
    if client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={lab}"}):
        return Engine("docker", None, client, docker.environment())
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
