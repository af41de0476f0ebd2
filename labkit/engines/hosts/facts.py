"""What the Docker engine of each machine says of itself, before anything is put there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labkit.engines.docker import refuse_unfit
from labkit.errors import EngineError

if TYPE_CHECKING:
    from docker import DockerClient

IMAGE_OF_APP = "node-test:latest"
GATEWAY_BRIDGE = "docker_gwbridge"
_ACTIVE = "active"


@dataclass(frozen=True)
class Membership:
    """A machine's part in a swarm."""

    state: str
    """`inactive`, `pending`, `active`, `error` or `locked`."""
    node: str = ""
    address: str = ""
    manages: bool = False
    managers: frozenset[str] = frozenset()
    """The swarm's managers by their node ids: the same for all its nodes, so they stand for it."""
    members: Mapping[str, str] = field(default_factory=dict)
    """Node id -> hostname of all its nodes, as a manager lists them; empty from a worker."""

    @property
    def inside(self) -> bool:
        """Whether the machine is in a swarm, whatever is the matter with it."""
        return self.state != "inactive"

    @property
    def well(self) -> bool:
        """Whether it is in one and takes part."""
        return self.state == _ACTIVE


@dataclass(frozen=True)
class Facts:
    """What one engine says."""

    hostname: str
    version: str
    unfit: str
    """Why it cannot run what labkit needs there; empty where it can."""
    clock_s: float
    """By how many seconds its clock is ahead of this machine's, give or take `clock_error_s`."""
    clock_error_s: float
    swarm: Membership
    networks: Mapping[str, tuple[str, ...]]
    """Name -> subnets of the networks that are this machine's own: bridges, not overlays."""
    overlays: tuple[str, ...]
    """The ids of those that are a swarm's."""
    images: Mapping[str, str]
    """Tag -> id."""
    volumes: tuple[str, ...]


def ask(client: DockerClient) -> Facts:
    """Ask an engine; raises NodeUnreachable and DaemonError."""
    began = time.time()
    info: dict[str, Any] = client.info()
    ended = time.time()
    return Facts(
        hostname=str(info.get("Name")),
        version=str(info.get("ServerVersion")),
        unfit=_unfit(info),
        clock_s=seconds(str(info.get("SystemTime"))) - (began + ended) / 2,
        clock_error_s=(ended - began) / 2,
        swarm=membership(client, info),
        networks=_networks(client),
        overlays=tuple(overlays(client)),
        images=images_of(client),
        volumes=tuple(row["Name"] for row in client.api.volumes().get("Volumes") or ()),
    )


def membership(client: DockerClient, info: Mapping[str, Any]) -> Membership:
    """Return a machine's part in a swarm; raises NodeUnreachable, and DaemonError without a leader."""
    found = part(info)
    rows = client.api.nodes() if found.manages else []
    return replace(found, members={row["ID"]: row["Description"].get("Hostname", "") for row in rows})


def part(info: Mapping[str, Any]) -> Membership:
    """Return a machine's part in a swarm as it tells it without asking the other managers."""
    told: Mapping[str, Any] = info.get("Swarm") or {}
    managers = frozenset(row["NodeID"] for row in told.get("RemoteManagers") or ())
    return Membership(
        state=str(told.get("LocalNodeState") or "inactive"),
        node=str(told.get("NodeID") or ""),
        address=str(told.get("NodeAddr") or ""),
        manages=bool(told.get("ControlAvailable")),
        managers=managers,
    )


def _unfit(info: dict[str, Any]) -> str:
    try:
        refuse_unfit(info)
    except EngineError as problem:
        return str(problem.args[0])
    return ""


def seconds(text: str) -> float:
    """Read a time as Go writes it, with nine digits after the dot where Python takes six."""
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    text = f"{head}.{rest[: min(digits, 6)]}{rest[digits:]}" if dot else text
    return datetime.fromisoformat(text).timestamp()


def _networks(client: DockerClient) -> dict[str, tuple[str, ...]]:
    return {
        row["Name"]: tuple(
            c["Subnet"] for c in (row["IPAM"] or {}).get("Config") or () if "Subnet" in c
        )
        for row in client.api.networks()
        if row["Scope"] == "local"
    }


def overlays(client: DockerClient) -> dict[str, str]:
    """Return the overlay networks that an engine has: id -> name."""
    return {row["Id"]: row["Name"] for row in client.api.networks() if row["Scope"] == "swarm"}


def images_of(client: DockerClient) -> dict[str, str]:
    """Return the images of an engine that have a name: tag -> id."""
    return {tag: row["Id"] for row in client.api.images() for tag in row.get("RepoTags") or ()}
