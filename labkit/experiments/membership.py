"""Who is on a network, as each node tells it (lab 13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from labkit.schema import Column, table

if TYPE_CHECKING:
    from labkit.schema import Row
    from labkit.swarm import Lab


@table(
    Column("node", "str", "the node that was asked"),
    Column(
        "part",
        "str",
        "the part of its answer: `Containers`, which are its own, or `Services`, which only `-v` shows",
    ),
    Column("name", "str", "a task as SERVICE.SLOT, a container, or NETWORK-endpoint: a load balancer"),
    Column("service", "str", "absent: it is of no service, or the part does not tell"),
    Column("address", "str", "IPv4"),
    Column("host", "str", "the node that it is on; absent: it is on none of the lab's"),
)
def members(lab: Lab, network: str) -> list[Row]:
    """Ask each node who is on an overlay, by `docker network inspect -v`: one row per node and member.

    A node that has nobody on the network has nothing to tell, and gives no row.

    Raises:
        SwarmError: a node could not be asked.
    """
    nodes = list(lab.nodes.values())
    hosts = {node.address: node.name for node in nodes}
    argv = ["docker", "network", "inspect", "-v", network]
    rows: list[Row] = []
    for node, capture in zip(nodes, lab.run_all([(node.place, argv) for node in nodes]), strict=True):
        if capture.ok:
            [found] = json.loads(capture.stdout)
            rows += _own(node.name, found)
            rows += _of_all_nodes(node.name, found, hosts)
    return rows


def _own(node: str, network: dict[str, Any]) -> Iterator[Row]:
    """Yield what a node calls its own containers; a load balancer is one of them."""
    boxes = (network.get("Containers") or {}).values()
    for address, name in sorted((box["IPv4Address"].partition("/")[0], box["Name"]) for box in boxes):
        row = {"node": node, "part": "Containers", "name": _task_name(name), "service": None}
        yield row | {"address": address, "host": node}


def _of_all_nodes(node: str, network: dict[str, Any], hosts: dict[str, str]) -> Iterator[Row]:
    """Yield whom a node knows on all nodes; containers of no service are under the empty name."""
    for service, known in sorted((network.get("Services") or {}).items()):
        for task in sorted(known["Tasks"] or (), key=lambda task: str(task["EndpointIP"])):
            row: Row = {"node": node, "part": "Services", "name": _task_name(task["Name"])}
            row |= {"service": service or None, "address": task["EndpointIP"]}
            yield row | {"host": hosts.get(task["Info"]["Host IP"])}


def _task_name(name: str) -> str:
    """Return SERVICE.SLOT of a task's container, called SERVICE.SLOT.ID; other names as they are."""
    service_slot, _, identity = name.rpartition(".")
    return service_slot if "." in service_slot and len(identity) == 25 else name
