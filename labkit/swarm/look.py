"""One look at a swarm, as a manager sees it: nodes, overlay networks, services, tasks; plain data.

Each row has its `told`, the words that people read, and a `sign` that says the same at a glance, so
that every picture of a swarm says it alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.swarm import picture
from labkit.swarm.places import addresses_of

if TYPE_CHECKING:
    from labkit.swarm.lab import Lab

Row = Mapping[str, Any]

# A task whose state is one of these comes to no other state by itself.
_ENDED = ("complete", "failed", "rejected", "remove", "shutdown", "orphaned")
_BROKEN = ("failed", "rejected", "orphaned")
_TO_BE = {"remove": "removed", "shutdown": "shut down"}  # Swarm's word for what it wants, in a sentence
_FINE, _BAD, _GONE, _MOVES = "●", "▲", "○", "◐"
_SIGNS = {"running": _FINE} | dict.fromkeys(_ENDED, _GONE) | dict.fromkeys(_BROKEN, _BAD)
_KEPT = 2  # ended tasks of a slot that are shown, the newest ones


@dataclass(frozen=True)
class NodeRow:
    """A node: its ``role``, and its ``state`` and ``availability`` in the manager's eyes."""

    name: str
    address: str
    role: str
    leader: bool
    state: str
    availability: str
    told: str
    sign: str


@dataclass(frozen=True)
class NetworkRow:
    """An overlay network, with its first IPv4 subnet; ``ingress`` is the routing mesh's."""

    name: str
    subnet: str
    ingress: bool
    encrypted: bool
    told: str


@dataclass(frozen=True)
class ServiceRow:
    """A service: how many of its tasks run, and are wanted; its virtual addresses and ports."""

    name: str
    mode: str
    running: int
    wanted: int
    addresses: dict[str, str]
    """The virtual IP on each network that it has one on; network -> address."""
    ports: tuple[str, ...]
    """As ``docker service ls`` writes them: 8080->3000/tcp."""
    told: str


@dataclass(frozen=True)
class TaskRow:
    """A task: where it is, what Swarm wants of it (``desired``), its ``state``, and why it failed."""

    name: str
    service: str
    node: str
    state: str
    desired: str
    container: str
    addresses: dict[str, str]
    error: str
    since: str
    """When it came to this state; as the API says it, UTC."""
    ended: bool
    """It comes to no other state."""
    told: str
    sign: str

    @property
    def moves(self) -> bool:
        """Whether it is on its way to another state."""
        return not self.ended and self.state != self.desired


@dataclass(frozen=True)
class Look:
    """What was there, each in the order in which people look for it."""

    nodes: tuple[NodeRow, ...]
    networks: tuple[NetworkRow, ...]
    services: tuple[ServiceRow, ...]
    tasks: tuple[TaskRow, ...]

    @property
    def moves(self) -> bool:
        """Whether a task is on its way to another state, so that one more look is worth its price."""
        return any(task.moves for task in self.tasks)

    def __str__(self) -> str:
        return picture.text(self)

    def _repr_html_(self) -> str:
        return picture.html_of(self)


def look_at(lab: Lab) -> Look:
    """Look at a swarm by four requests to its manager, side by side.

    Raises DaemonError and NodeUnreachable.
    """
    api = lab.manager.docker.api
    with ThreadPoolExecutor(4) as pool:
        asked = (
            pool.submit(api.nodes),
            pool.submit(api.networks, filters={"driver": "overlay"}),
            pool.submit(api.services, status=True),
            pool.submit(api.tasks),
        )
        nodes, networks, services, tasks = (future.result() for future in asked)
    names = {row["ID"]: lab.called(row["Description"]["Hostname"]) for row in nodes}
    called = {row["Id"]: row["Name"] for row in networks}
    known = {row["ID"]: row["Spec"]["Name"] for row in services}
    return Look(
        nodes=tuple(sorted((_node(row, lab) for row in nodes), key=lambda row: row.name)),
        networks=tuple(sorted((_network(row) for row in networks), key=lambda row: row.name)),
        services=tuple(sorted((_service(row, called) for row in services), key=lambda row: row.name)),
        tasks=tuple(_newest(tasks, names, known)),
    )


def _node(row: Row, lab: Lab) -> NodeRow:
    hostname, role, state = row["Description"]["Hostname"], row["Spec"]["Role"], row["Status"]["State"]
    name = lab.called(hostname)
    known = lab.nodes.get(name)
    address = known.address if known else row["Status"].get("Addr", "")
    leader = bool((row.get("ManagerStatus") or {}).get("Leader"))
    availability = row["Spec"]["Availability"]
    words = [f"{role}, leader" if leader else role, state]
    if availability != "active":
        words.append("drained" if availability == "drain" else availability)
    return NodeRow(
        name=name,
        address=address,
        role=role,
        leader=leader,
        state=state,
        availability=availability,
        told=", ".join([*words, address, *([hostname] if hostname != name else [])]),
        sign=_FINE if state == "ready" else _BAD,
    )


def _network(row: Row) -> NetworkRow:
    subnets = [item.get("Subnet", "") for item in (row["IPAM"] or {}).get("Config") or ()]
    subnet = next((subnet for subnet in subnets if ":" not in subnet), "")
    ingress, encrypted = bool(row.get("Ingress")), "encrypted" in (row.get("Options") or {})
    words = [subnet, "the routing mesh" if ingress else "", "encrypted" if encrypted else ""]
    return NetworkRow(row["Name"], subnet, ingress, encrypted, told=", ".join(filter(None, words)))


def _service(row: Row, called: Mapping[str, str]) -> ServiceRow:
    endpoint, status = row.get("Endpoint") or {}, row.get("ServiceStatus") or {}
    pairs = [(item["NetworkID"], item.get("Addr", "")) for item in endpoint.get("VirtualIPs") or ()]
    running, wanted = status.get("RunningTasks", 0), status.get("DesiredTasks", 0)
    return ServiceRow(
        name=row["Spec"]["Name"],
        mode=next(iter(row["Spec"]["Mode"])).lower(),
        running=running,
        wanted=wanted,
        addresses={called[key]: address.split("/")[0] for key, address in pairs if key in called},
        ports=tuple(map(_port, endpoint.get("Ports") or ())),
        told=f"{running} of {wanted} run",
    )


def _port(row: Row) -> str:
    host = " on each node alone" if row.get("PublishMode") == "host" else ""
    return f"{row.get('PublishedPort', '?')}->{row['TargetPort']}/{row['Protocol']}{host}"


def _newest(rows: Iterable[Row], names: Mapping[str, str], known: Mapping[str, str]) -> list[TaskRow]:
    """Return the tasks by name, of each slot the newest first and few of those that have ended."""
    found: dict[str, list[TaskRow]] = {}
    for row in sorted(rows, key=lambda row: str(row["CreatedAt"]), reverse=True):
        if row.get("ServiceID") not in known:
            continue  # its service was removed; it goes by itself
        task = _task(row, names.get(row.get("NodeID", ""), ""), known[row["ServiceID"]])
        slot = found.setdefault(task.name, [])
        if not task.ended or sum(other.ended for other in slot) < _KEPT:
            slot.append(task)
    return [task for name in sorted(found, key=_by_number) for task in found[name]]


def _by_number(name: str) -> tuple[str, int, str]:
    service, _, slot = name.rpartition(".")
    return service, int(slot) if slot.isdigit() else 0, slot


def _task(row: Row, node: str, service: str) -> TaskRow:
    status, desired = row["Status"], row["DesiredState"]
    state, ended = status["State"], status["State"] in _ENDED
    return TaskRow(
        name=f"{service}.{row.get('Slot') or node}",  # of a global service each node has one
        service=service,
        node=node,
        state=state,
        desired=desired,
        container=(status.get("ContainerStatus") or {}).get("ContainerID", ""),
        addresses=addresses_of(row),
        error=status.get("Err", ""),
        since=status["Timestamp"],
        ended=ended,
        told=state if ended or state == desired else f"{state}, to be {_TO_BE.get(desired, desired)}",
        sign=_SIGNS.get(state, _MOVES),
    )
