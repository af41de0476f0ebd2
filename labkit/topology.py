"""The nodes of a swarm as compose/swarm.yaml describes them: the one description there is.

The file is a real Compose file. labkit reads the keys that the nodes need and refuses any other, naming
file, line and key: with a key that is silently ignored, `docker compose up` and labkit would make two
different swarms of one file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from labkit.errors import TopologyError, UsageError

MOST_NODES = 20
"""The largest number of nodes of one lab."""

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")
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
    root = _document(file)
    reader = _Reader(str(file), {"LABKIT_LAB": lab, "LABKIT_DOCKER": docker})
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


def _document(file: Path) -> yaml.Node:
    """Return the root of a YAML file that is not empty; raises TopologyError."""
    try:
        root = yaml.compose(file.read_text(), Loader=yaml.SafeLoader)
    except OSError as problem:
        raise TopologyError(str(file), 1, "", f"cannot be read: {problem.strerror}") from problem
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        raise TopologyError(str(file), line, "", f"is not YAML: {problem.problem}") from problem
    if root is None:
        raise TopologyError(str(file), 1, "services", "is missing: the file is empty")
    return root


def _node(reader: _Reader, item: yaml.Node, path: str, network: str) -> Node:
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


class _Reader:
    """Reads YAML nodes rather than values, because only a YAML node knows its line."""

    def __init__(self, file: str, variables: Mapping[str, str]) -> None:
        self._file, self._variables = file, variables

    def wrong(self, node: yaml.Node, key: str, problem: str) -> TopologyError:
        """Return the error that names the file, the node's line and the key."""
        return TopologyError(self._file, node.start_mark.line + 1, key, problem)

    def required(
        self, table: dict[str, yaml.Node], key: str, parent: yaml.Node
    ) -> tuple[yaml.Node, str]:
        """Return the value of a key that has to be there, with the key; raises TopologyError."""
        if key not in table:
            raise self.wrong(parent, key, "is missing")
        return table[key], key

    def mapping(
        self,
        node: yaml.Node | None,
        path: str,
        *,
        known: set[str] | None = None,
        extensions: bool = False,
    ) -> dict[str, yaml.Node]:
        """Return key -> YAML node with merge keys (`<<`) resolved; raises TopologyError.

        `known` are the keys that may be there; any may where it is None. `extensions` allows `x-…`.
        """
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1 if node else 1
            raise TopologyError(self._file, line, path, "must be a mapping of keys to values")
        table: dict[str, yaml.Node] = {}
        for key_node, item in node.value:
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                table = {**self.mapping(item, path), **table}
                continue
            if known is not None and key not in known and not (extensions and key[:2] == "x-"):
                where = f"{path}.{key}" if path else key
                names = ", ".join(sorted(known))
                raise self.wrong(key_node, where, f"is not known here; known: {names}")
            table[key] = item
        return table

    def checked(
        self, node: yaml.Node, path: str, keys: Mapping[str, tuple[type, bool]]
    ) -> dict[str, Any]:
        """Return the values of a mapping, each of its key's type; raises TopologyError."""
        table = self.mapping(node, path)
        row: dict[str, Any] = {}
        for key, item in table.items():
            if key not in keys:
                known = ", ".join(sorted(keys))
                raise self.wrong(item, f"{path}.{key}", f"is not known here; known: {known}")
            expected, _ = keys[key]
            found = self.value(item, f"{path}.{key}")
            if not isinstance(found, expected):
                kind = {dict: "a mapping", list: "a list", bool: "true or false", str: "a text"}
                raise self.wrong(item, f"{path}.{key}", f"is {found!r}, expected {kind[expected]}")
            row[key] = found
        for key, (_, is_required) in keys.items():
            if is_required and key not in row:
                raise self.wrong(node, f"{path}.{key}", "is missing")
        return row

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the plain value, with ${VARIABLE:-default} replaced; raises TopologyError."""
        if isinstance(node, yaml.MappingNode):
            return {k: self.value(v, f"{path}.{k}") for k, v in self.mapping(node, path).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, path) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == "tag:yaml.org,2002:bool":
            return node.value.lower() in ("true", "yes", "on")

        def fill(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            found = self._variables.get(name, default)
            if found is None:
                raise self.wrong(node, path, f"${{{name}}} has no value and no default")
            return found

        return _VARIABLE.sub(fill, str(node.value))
