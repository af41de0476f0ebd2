"""The nodes of a swarm as compose/swarm.yaml describes them: the one description there is.

The file is a real Compose file. labkit reads the keys that the nodes need and refuses any other, naming
file, line and key: with a key that is silently ignored, `docker compose up` and labkit would make two
different swarms of one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from labkit.errors import TopologyError, UsageError
from labkit.yaml_lines import Reader

MOST_NODES = 20
"""The largest number of nodes of one lab."""

# key -> (the type of its value, whether it is required)
_SERVICE_KEYS: dict[str, tuple[type, bool]] = {
    "image": (str, True),
    "hostname": (str, True),
    "privileged": (bool, True),
    "cgroup": (str, False),
    "networks": (list, True),
    "volumes": (list, True),
    "tmpfs": (list, False),
    "environment": (dict, False),
    "labels": (dict, True),
}
_NETWORK_KEYS: dict[str, tuple[type, bool]] = {"internal": (bool, True), "labels": (dict, False)}


@dataclass(frozen=True)
class Node:
    """One node's container, as the Compose file describes it."""

    name: str
    image: str
    privileged: bool
    cgroup: str
    network: str
    volumes: tuple[str, ...]
    tmpfs: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Topology:
    """The nodes of one swarm, and the network under their overlays."""

    project: str
    docker: str
    nodes: tuple[Node, ...]
    network: str
    internal: bool
    network_labels: Mapping[str, str]


def load(file: Path, *, lab: str, docker: str, nodes: int) -> Topology:
    """Read the Compose file for a lab with this number of nodes and this Docker version.

    Where the file lists fewer services, the last one is repeated as node4, node5, …. Raises UsageError
    for a number of nodes outside 1 to MOST_NODES, TopologyError for a file that cannot be read or is
    wrong.
    """
    if not 1 <= nodes <= MOST_NODES:
        raise UsageError(
            f"a swarm of {nodes} nodes was asked for; 1 to {MOST_NODES} can be had",
            hint="labkit up --nodes 3",
        )
    reader = Reader(file, TopologyError, {"LABKIT_LAB": lab, "LABKIT_DOCKER": docker})
    root = reader.root()
    top = reader.mapping(root, "", known={"name", "services", "networks"}, extensions=True)
    services = reader.mapping(*reader.required(top, "services", root))
    networks = reader.mapping(*reader.required(top, "networks", root))
    if len(networks) != 1:
        raise reader.wrong(root, "networks", f"has {len(networks)} networks, the nodes need one")
    (network, item), *_ = networks.items()
    underlay = reader.checked(item, f"networks.{network}", _NETWORK_KEYS)
    listed = [
        _node(reader, item, f"services.{key}", network) for key, item in list(services.items())[:nodes]
    ]
    if not listed:
        raise reader.wrong(root, "services", "lists no node")
    repeated = [replace(listed[-1], name=f"node{i + 1}") for i in range(len(listed), nodes)]
    described = (*listed, *repeated)
    names = [node.name for node in described]
    if len(set(names)) != len(names):
        raise reader.wrong(root, "services", f"two nodes have one hostname: {', '.join(names)}")
    return Topology(
        project=str(reader.value(*reader.required(top, "name", root))),
        docker=docker,
        nodes=described,
        network=network,
        internal=underlay["internal"],
        network_labels=underlay.get("labels") or {},
    )


def _node(reader: Reader, item: yaml.Node, path: str, network: str) -> Node:
    """Return the node that one service of the file describes; raises TopologyError."""
    row = reader.checked(item, path, _SERVICE_KEYS)
    if row["networks"] != [network]:
        raise reader.wrong(item, f"{path}.networks", f"is {row['networks']}, expected [{network}]")
    return Node(
        name=row["hostname"],
        image=row["image"],
        privileged=row["privileged"],
        cgroup=row.get("cgroup", "private"),
        network=network,
        volumes=tuple(row["volumes"]),
        tmpfs=tuple(row.get("tmpfs", ())),
        environment=row.get("environment", {}),
        labels=row["labels"],
    )
