"""The picture of the network: every namespace of every node, its interfaces, and what they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit import parsers
from labkit.experiments.swarms import NAMESPACE_FILES, namespaces_of, network_names
from labkit.schema import Column, table

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Node, Place, Task

_LINKS = ["ip", "-d", "addr"]


@dataclass(frozen=True)
class _Namespace:
    """A network namespace, and what it belongs to."""

    place: Place
    kind: str
    network: str | None


@table(
    Column("node", "str", "the node of the namespace"),
    Column("place", "str", "the namespace: a node, ingress_sbox, lb_ or overlay NETWORK, a task"),
    Column("kind", "str", "node, ingress_sbox, load balancer, overlay, task"),
    Column("network", "str", "of an overlay, a load balancer or ingress_sbox; absent: the others"),
    Column("interface", "str", "its name there"),
    Column("device", "str", "veth, bridge, vxlan, ether or loopback"),
    Column("address", "str", "IPv4, the first one; absent: none"),
    Column("mac", "str", "hardware address"),
    Column("mtu", "int", "bytes"),
    Column("bridge", "str", "the bridge that it is a port of; absent: none"),
    Column("vni", "int", "VXLAN network identifier; absent: no vxlan device"),
    Column("peer_place", "str", "where the other end of a veth pair is; absent: no pair, or not found"),
    Column("peer", "str", "the name of the other end"),
)
def topology(lab: Lab) -> list[Row]:
    """List the interfaces of every network namespace of the swarm: one row per interface.

    They are those that Docker keeps, and the node's own. Both ends of a veth pair are found by their
    numbers, which a node gives out once (Linux, `ip link`: `eth0@if14` is the pair of number 14).

    Raises:
        CommandFailed: `find` or `ip` failed at a place.
        SwarmError: a node could not be asked.
    """
    known = network_names(lab)
    nodes = list(lab.nodes.values())
    listed = lab.run_all([(node.place, NAMESPACE_FILES) for node in nodes])
    services = lab.manager.docker.api.services()
    tasks = [task for service in services for task in lab.tasks(service["Spec"]["Name"])]
    rows: list[Row] = []
    for node, files in zip(nodes, listed, strict=True):
        spaces = list(_namespaces(node, files, known, tasks))
        captures = lab.run_all([(space.place, _LINKS) for space in spaces])
        here: list[tuple[Row, int, int | None]] = []
        for space, capture in zip(spaces, captures, strict=True):
            here += _links(space, capture.check())
        rows += _paired(here)
    return rows


def _namespaces(
    node: Node, files: Capture, known: dict[str, str], tasks: list[Task]
) -> Iterator[_Namespace]:
    """Yield the namespaces of a node, its own first."""
    yield _Namespace(node.place, "node", None)
    here = {}
    for task in tasks:
        if task.node.name == node.name:
            inspected = node.docker.api.inspect_container(task.container)
            here[str(inspected["NetworkSettings"]["SandboxKey"]).rpartition("/")[2]] = task
    for row in namespaces_of(files.check().lines, known):
        if row["kind"] != "task":
            yield _Namespace(node.netns(row["name"]), row["kind"], row["network"])
        elif row["name"] in here:
            yield _Namespace(here[row["name"]].sandbox, "task", None)


def _links(space: _Namespace, capture: Capture) -> Iterator[tuple[Row, int, int | None]]:
    """Yield a row for each interface, with its number and that of the other end of its pair."""
    details = parsers.ip_link(capture.text).to_dict("records")
    addresses = parsers.ip_addr(capture.text)
    addresses = addresses[addresses["family"] == "inet"].drop_duplicates("interface")
    first = dict(zip(addresses["interface"], addresses["address"], strict=True))
    label = _label(space)
    for link in details:
        device = _text(link["kind"]) or _text(link["link_type"])
        row: Row = {
            "node": space.place.node.name,
            "place": label,
            "kind": space.kind,
            "network": space.network,
            "interface": link["interface"],
            "device": device,
            "address": first.get(link["interface"]),
            "mac": _text(link["mac"]),
            "mtu": link["mtu"],
            "bridge": _text(link["master"]),
            "vni": link["vni"],
        }
        number = re.fullmatch(r"if(\d+)", _text(link["peer"]) or "")
        yield row, int(link["index"]), int(number[1]) if number and device == "veth" else None


def _label(space: _Namespace) -> str:
    """Call a namespace as a person does, without its node."""
    named = {"load balancer": "lb_{}", "overlay": "overlay {}"}.get(space.kind)
    if named:
        return named.format(space.network)
    return space.kind if space.kind == "ingress_sbox" else space.place.label.removesuffix(" sandbox")


def _paired(links: list[tuple[Row, int, int | None]]) -> list[Row]:
    """Put both ends of each veth pair of a node together."""
    ends = {(own, other): row for row, own, other in links if other is not None}
    for row, own, other in links:
        peer = ends.get((other, own)) if other is not None else None
        row["peer_place"] = peer["place"] if peer else None
        row["peer"] = peer["interface"] if peer else None
    return [row for row, _, _ in links]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
