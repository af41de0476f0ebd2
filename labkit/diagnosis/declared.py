"""What the manager says of its swarm: nodes, overlay networks, services and tasks; plain data."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.swarm.places import Task, runs, task_of
from labkit.transport.base import DaemonError, NodeUnreachable

if TYPE_CHECKING:
    from labkit.swarm import Lab, Node

log = logging.getLogger(__name__)

_VXLAN_PORT = 4789  # where `docker swarm init` was given no --data-path-port
_OVERLAY = ("overlay", "")  # one that has no subnet yet does not tell its driver
_URL = re.compile(r"https?://[^\s\"'<>]+")


@dataclass(frozen=True)
class Network:
    """An overlay network; `pool` is what addresses are given out of.

    One that Swarm cannot set up, since another has its subnet, is there by its name alone.
    """

    id: str
    name: str
    ingress: bool
    encrypted: bool
    subnets: tuple[ipaddress.IPv4Network, ...]
    pool: tuple[ipaddress.IPv4Network, ...]
    gateways: frozenset[str]
    allocated: bool = True

    def holds(self, address: str) -> bool:
        """Whether an address is of one of its subnets."""
        return any(ipaddress.ip_address(address) in subnet for subnet in self.subnets)

    @property
    def room(self) -> int:
        """How many addresses there are for virtual IPs, load balancers and tasks."""
        return sum(
            # The first and the last address of a subnet mean the subnet and everybody in it.
            sum(str(address) not in self.gateways | self._ends for address in pool)
            if pool.num_addresses <= 1024
            else pool.num_addresses - 3
            for pool in self.pool
        )

    @property
    def _ends(self) -> set[str]:
        return {
            str(end)
            for subnet in self.subnets
            for end in (subnet.network_address, subnet.broadcast_address)
        }


@dataclass(frozen=True)
class Port:
    """A published port."""

    published: int
    target: int
    protocol: str
    ingress: bool


@dataclass(frozen=True)
class Service:
    """A service: where it can be reached, what it is called, whom it says that it calls."""

    name: str
    networks: frozenset[str]
    """The names of its overlays, without the routing mesh's."""
    virtual: Mapping[str, str]
    """Its virtual IP on each network; network -> address."""
    ports: tuple[Port, ...]
    aliases: Mapping[str, frozenset[str]]
    """Other names that it has on a network; network -> names."""
    urls: Mapping[str, str]
    """The addresses in its labels and its environment; label or variable -> URL."""
    health: str
    """The command of its health check; empty where its image's is asked, or none."""


@dataclass(frozen=True)
class Wanted:
    """A task that ought to run, and its state."""

    name: str
    service: str
    state: str
    error: str
    node: str
    container: str


@dataclass(frozen=True)
class Declared:
    """What the manager says at one moment."""

    states: Mapping[str, str]
    """The nodes, by name, with their state in the manager's eyes."""
    networks: tuple[Network, ...]
    services: tuple[Service, ...]
    wanted: tuple[Wanted, ...]
    running: tuple[Task, ...]
    """Of those that ought to run, those that do and of which all is known."""
    vxlan_port: int = _VXLAN_PORT
    """The UDP port by which the overlays of all nodes reach each other."""

    @cached_property
    def by_name(self) -> dict[str, Network]:
        """The networks by their names."""
        return {network.name: network for network in self.networks}

    def service(self, name: str) -> Service:
        """Return a service that a task is of."""
        return next(service for service in self.services if service.name == name)

    def tasks(self, service: str) -> list[Task]:
        """List the running tasks of a service."""
        return [task for task in self.running if task.service == service]

    def knows_all(self, service: str) -> bool:
        """Whether all tasks of a service that run are known, with their addresses."""
        run = sum(task.service == service and task.state == "running" for task in self.wanted)
        return run == len(self.tasks(service))


def of(lab: Lab) -> Declared:
    """Ask the manager, by five requests side by side; raises DaemonError and NodeUnreachable."""
    api = lab.manager.docker.api
    with ThreadPoolExecutor(5) as pool:
        swarm = pool.submit(api.inspect_swarm)
        asked = (
            pool.submit(api.nodes),
            pool.submit(api.networks, filters={"scope": "swarm"}),
            pool.submit(api.services),
            pool.submit(api.tasks, filters={"desired-state": "running"}),
        )
        nodes, networks, services, tasks = (future.result() for future in asked)
    # A node that has left and joined again is listed twice: what it is now counts.
    nodes.sort(key=lambda row: row["Status"]["State"] == "ready")
    names = {row["ID"]: lab.called(row["Description"]["Hostname"]) for row in nodes}
    known = {row["Id"]: row["Name"] for row in networks}
    called = {row["ID"]: row["Spec"]["Name"] for row in services}
    ours = [row for row in tasks if row.get("ServiceID") in called]
    here = [row for row in ours if runs(row) and names.get(row["NodeID"]) in lab.nodes]
    return Declared(
        states={names[row["ID"]]: row["Status"]["State"] for row in nodes},
        networks=tuple(_network(row) for row in networks if row["Driver"] in _OVERLAY),
        services=tuple(_service(row, known) for row in services),
        wanted=tuple(_wanted(row, called[row["ServiceID"]], names) for row in ours),
        running=tuple(
            task
            for row in here
            if (task := _task(called[row["ServiceID"]], row, lab.node(names[row["NodeID"]])))
        ),
        vxlan_port=swarm.result().get("DataPathPort") or _VXLAN_PORT,
    )


def _task(service: str, row: Mapping[str, Any], node: Node) -> Task | None:
    """Return a running task; None where its node has to be asked for its address, and cannot tell."""
    try:
        return task_of(service, row, node)
    except (DaemonError, NodeUnreachable) as problem:
        log.info("a task of %s is not known: %s", service, problem)
        return None


def _network(row: Mapping[str, Any]) -> Network:
    configs = [c for c in (row["IPAM"] or {}).get("Config") or () if ":" not in c.get("Subnet", ":")]
    subnets = tuple(_range(config["Subnet"]) for config in configs)
    return Network(
        id=row["Id"],
        name=row["Name"],
        ingress=bool(row.get("Ingress")),
        encrypted="encrypted" in (row.get("Options") or {}),
        subnets=subnets,
        pool=tuple(_range(config.get("IPRange") or config["Subnet"]) for config in configs),
        gateways=frozenset(config.get("Gateway", "") for config in configs),
        allocated=bool((row["IPAM"] or {}).get("Config")),
    )


def _range(text: str) -> ipaddress.IPv4Network:
    """Read a range as Docker does: it may be written as an address in it, 10.0.0.7/24."""
    return ipaddress.IPv4Network(text, strict=False)


def _service(row: Mapping[str, Any], known: Mapping[str, str]) -> Service:
    spec, endpoint = row["Spec"], row.get("Endpoint") or {}
    task = spec["TaskTemplate"]
    container = task.get("ContainerSpec") or {}
    attached = {
        known.get(item["Target"], ""): item.get("Aliases") for item in task.get("Networks") or ()
    }
    given = {
        known.get(item["NetworkID"], ""): item.get("Addr", "").partition("/")[0]
        for item in endpoint.get("VirtualIPs") or ()
    }
    variables = dict(item.partition("=")[::2] for item in container.get("Env") or ())
    return Service(
        name=spec["Name"],
        networks=frozenset(attached) - {""},
        virtual={network: address for network, address in given.items() if network and address},
        ports=tuple(
            Port(port["PublishedPort"], port["TargetPort"], port["Protocol"], _is_ingress(port))
            for port in endpoint.get("Ports") or ()
            if port.get("PublishedPort")
        ),
        aliases={network: frozenset(names or ()) for network, names in attached.items() if network},
        urls={
            name: found[0]
            for name, value in ((spec.get("Labels") or {}) | variables).items()
            if (found := _URL.match(value))
        },
        health=" ".join((container.get("Healthcheck") or {}).get("Test") or ()),
    )


def _is_ingress(port: Mapping[str, Any]) -> bool:
    return bool(port.get("PublishMode", "ingress") == "ingress")


def _wanted(row: Mapping[str, Any], service: str, names: Mapping[str, str]) -> Wanted:
    status, node = row["Status"], names.get(row.get("NodeID", ""), "")
    return Wanted(
        name=f"{service}.{row.get('Slot') or node}",
        service=service,
        state=status["State"],
        error=str(status.get("Err") or ""),
        node=node,
        container=(status.get("ContainerStatus") or {}).get("ContainerID", ""),
    )
