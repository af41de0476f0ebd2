"""What a swarm is made of: nodes, sockets, networks and network namespaces (lab 01)."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from labkit.experiments.asking import TIMEOUT_S, curl
from labkit.schema import Column, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.schema import Row
    from labkit.swarm import Lab, Node, Place

_TASK = "com.docker.swarm.task.id"  # the label of a task's container
NAMESPACE_FILES = ["find", "/run/docker/netns", "-mindepth", "1", "-printf", "%F %i %f\n"]


@table(
    Column("node", "str", "its name"),
    Column("role", "str", "manager or worker"),
    Column("availability", "str", "active, pause, drain"),
    Column("address", "str", "IPv4, between the nodes"),
    Column("argv", "str", "a command about the swarm, typed on this node"),
    Column("code", "int", "its exit code"),
    Column("stderr", "str", "what the command printed as its error"),
    Column("tasks", "int", "tasks that run on the node"),
)
def nodes(lab: Lab) -> list[Row]:
    """List who is in the swarm, who may give it commands and who works for it: one row per node.

    Raises:
        SwarmError: a node could not be asked.
    """
    argv = ["docker", "node", "ls"]
    captures = lab.run_all([(node.place, argv) for node in lab.nodes.values()])
    rows = lab.manager.docker.api.nodes()
    members = {lab.called(row["Description"]["Hostname"]): row for row in rows}
    running = [
        task["NodeID"]
        for task in lab.manager.docker.api.tasks(filters={"desired-state": "running"})
        if task["Status"]["State"] == "running"
    ]
    return [
        {
            "node": node.name,
            "role": members[node.name]["Spec"]["Role"],
            "availability": members[node.name]["Spec"]["Availability"],
            "address": node.address,
            "argv": capture.command,
            "code": capture.code,
            "stderr": capture.stderr.strip(),
            "tasks": running.count(members[node.name]["ID"]),
        }
        for node, capture in zip(lab.nodes.values(), captures, strict=True)
    ]


@table(
    Column("node", "str", "its name"),
    Column("role", "str", "manager, worker, or none: in no swarm"),
    Column("protocol", "str", "tcp or udp"),
    Column("port", "int", "that is listened on"),
    Column("program", "str", "that holds the socket; absent: no program, the kernel itself"),
)
def sockets(lab: Lab) -> pd.DataFrame:
    """List what listens in the nodes' own namespaces: one row per node, protocol and port.

    Sockets that are bound to loopback are left out: no other machine reaches them.

    Raises:
        CommandFailed: `ss` failed on a node.
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    roles = {row["name"]: row["role"] for row in lab.status()["nodes"]}
    captures = lab.run_all([(node.place, ["ss", "-lntup"]) for node in lab.nodes.values()])
    found = pd.concat([capture.check().table for capture in captures], ignore_index=True)
    found = found[~found["local_address"].str.match(r"127\.|::1$|.*%lo$")]
    found = found.rename(columns={"netid": "protocol", "local_port": "port", "process": "program"})
    keys = ["node", "protocol", "port"]
    found = found.groupby(keys)["program"].first().reset_index()
    found.insert(1, "role", [roles[node] for node in found["node"]])
    return found.sort_values(["node", "port", "protocol"], ignore_index=True)


@table(
    Column("step", "str", "what was done before, as the caller calls it"),
    Column("node", "str", "the node that was asked"),
    Column("network", "str", "its name"),
    Column("driver", "str", "overlay, bridge, host, null"),
    Column("scope", "str", "swarm: the same on every node that has it; local: the node's own"),
    Column("subnet", "str", "its first one, as 10.0.0.0/24; absent: none"),
)
def networks(lab: Lab, *, step: str) -> list[Row]:
    """List what `docker network ls` shows on each node: one row per node and network.

    Raises:
        SwarmError: a node could not be asked.
    """
    return [
        {
            "step": step,
            "node": node.name,
            "network": network["Name"],
            "driver": network["Driver"],
            "scope": network["Scope"],
            "subnet": next(iter(_subnets(network)), None),
        }
        for node in lab.nodes.values()
        for network in sorted(node.docker.api.networks(), key=lambda row: str(row["Name"]))
    ]


@table(
    Column("step", "str", "what was done before, as the caller calls it"),
    Column("node", "str", "the node that has it"),
    Column("name", "str", "of the file in /run/docker/netns"),
    Column("inode", "int", "the kernel's number of the namespace"),
    Column("kind", "str", "ingress_sbox, overlay, load balancer, task"),
    Column(
        "network", "str", "of an overlay or a load balancer; `ingress`: the mesh's; absent: a task's"
    ),
)
def namespaces(lab: Lab, *, step: str) -> list[Row]:
    """List the network namespaces that Docker keeps on each node: one row per namespace.

    They are read when they have come to rest: as many of tasks as there are containers.

    Raises:
        CommandFailed: the files of the namespaces could not be listed.
        WaitTimeout: the namespaces did not come to rest.
        SwarmError: a node could not be asked.
    """
    rows: list[Row] = []

    def look() -> tuple[bool, str]:
        rows[:] = []
        unsettled = []
        known = network_names(lab)
        listed = lab.run_all([(node.place, NAMESPACE_FILES) for node in lab.nodes.values()])
        for node, capture in zip(lab.nodes.values(), listed, strict=True):
            here = namespaces_of(capture.check().lines, known)
            # One with the machine's own network, as labkit's on a machine of one's own, has no file.
            modes = [row["HostConfig"]["NetworkMode"] for row in node.docker.api.containers()]
            containers = sum(mode != "host" for mode in modes)
            if not _fits(here, containers):
                names = ", ".join(row["name"] for row in here)
                unsettled.append(f"{node.name}: {containers} containers; namespaces {names}")
            rows.extend({"step": step, "node": node.name, **row} for row in here)
        return not unsettled, "; ".join(unsettled)

    lab.wait_for("the nodes' namespaces to fit their containers", look, seconds=60)
    return rows


def network_names(lab: Lab) -> dict[str, str]:
    """Map the ids of the swarm's networks to their names; that of the routing mesh is `ingress`."""
    networks = lab.manager.docker.api.networks()
    return {n["Id"]: "ingress" if n.get("Ingress") else n["Name"] for n in networks}


def namespaces_of(lines: Iterable[str], known: dict[str, str]) -> list[Row]:
    """Read the listing of the namespaces' files on one node."""
    rows = []
    for line in lines:
        kind, inode, name = line.split()
        # A file stays for up to a minute after its namespace is gone, and is then an ordinary file.
        # `default` is the machine's own, there where a container has its network.
        if kind == "nsfs" and name != "default":
            owner, network = kind_of(name, known)
            rows.append({"name": name, "inode": int(inode), "kind": owner, "network": network})
    return rows


def _fits(namespaces: Iterable[Row], containers: int) -> bool:
    """Whether a node has one namespace per container, and no overlay's without any container."""
    tasks = sum(row["kind"] == "task" for row in namespaces)
    others = any(row["network"] not in (None, "ingress") for row in namespaces)
    return tasks == containers and (containers > 0 or not others)


def kind_of(name: str, known: dict[str, str]) -> tuple[str, str | None]:
    """Return what the file of a namespace belongs to, and to which network, by libnetwork's naming."""
    if name == "ingress_sbox":
        return name, "ingress"
    for identity, network in known.items():
        if name == f"lb_{identity[:9]}":
            return "load balancer", network
        if re.fullmatch(rf"\d+-{identity[:10]}", name):
            return "overlay", network
    # An overlay that the manager has forgotten is still one.
    if name.startswith("lb_"):
        return "load balancer", "?"
    return ("overlay", "?") if re.match(r"\d+-", name) else ("task", None)


def _subnets(network: dict[str, Any]) -> list[str]:
    """Return the subnets of a network, as 10.0.0.0/24."""
    return [c["Subnet"] for c in (network["IPAM"] or {}).get("Config") or () if c.get("Subnet")]


@table(
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where it was looked"),
    Column("inode", "int", "the kernel's number of the place's network namespace"),
    Column("interface", "str", "its name there"),
    Column("address", "str", "IPv4"),
    Column("network", "str", "that the address belongs to; `underlay` is between the nodes"),
)
def namespace_views(lab: Lab, places: Iterable[Place]) -> list[Row]:
    """Show which part of the network each place sees: one row per place and address.

    Raises:
        CommandFailed: `readlink` or `ip` failed at a place.
        SwarmError: a node could not be asked.
    """
    chosen = list(places)
    asked = [["readlink", "/proc/self/ns/net"], ["ip", "-4", "addr"]]
    captures = lab.run_all([(place, argv) for place in chosen for argv in asked])
    subnets = {
        node.name: _networks_of(lab, node) for node in {p.node.name: p.node for p in chosen}.values()
    }
    rows: list[Row] = []
    for place, link, addresses in zip(chosen, captures[::2], captures[1::2], strict=True):
        inode = int(re.sub(r"\D", "", link.check().text))
        for row in addresses.check().table.itertuples():
            address = ipaddress.ip_address(str(row.address))
            network = "loopback" if address.is_loopback else "underlay"
            for subnet, name in subnets[place.node.name].items():
                network = name if address in ipaddress.ip_network(subnet) else network
            rows.append(
                {
                    "node": place.node.name,
                    "place": place.label,
                    "inode": inode,
                    "interface": row.interface,
                    "address": str(row.address),
                    "network": network,
                }
            )
    return rows


def _networks_of(lab: Lab, node: Node) -> dict[str, str]:
    """Map subnets to networks: the swarm's, and those that a node has for itself."""
    rows = [n for n in lab.manager.docker.api.networks() if n["Scope"] == "swarm"]
    rows += [n for n in node.docker.api.networks() if n["Scope"] == "local"]
    return {subnet: row["Name"] for row in rows for subnet in _subnets(row)}


@table(
    Column("step", "str", "as it was, drained, out of the swarm, in again"),
    Column("command", "str", "what led to the step; absent for the first"),
    Column("node", "str", "where the thing was looked for"),
    Column("thing", "str", "socket, namespace, answer"),
    Column("name", "str", "2377/tcp; ingress_sbox, overlay NETWORK, …; port N of a node"),
    Column("count", "int", "how many there were; of answers: 1 answered, 0 not"),
)
def leave_and_rejoin(lab: Lab, node: Node, *, service: str, port: int) -> list[Row]:
    """Drain a worker, take it out of the swarm, take it in again: one row per step and thing.

    At the end the node is a worker as before, also when something fails on the way.

    Raises:
        CommandFailed: the node could not be drained, taken out or taken in.
        WaitTimeout: the swarm did not come to rest after a step.
        SwarmError: a node could not be asked.
        EngineError: the swarm was there before labkit, and its nodes stay as they are.
    """
    drain = ["docker", "node", "update", "--availability", "drain", node.hostname]
    lab.manager.place.demand(drain)  # before anything is waited for, or undone at the end
    others = {name: other for name, other in lab.nodes.items() if name != node.name}
    rest = dataclasses.replace(lab, nodes=others)
    replicas = len(lab.tasks(service))
    lab.wait_for_port(port)

    def look(step: str, command: str | None, whole: Lab) -> list[Row]:
        lab.wait_for_tasks(service, replicas)
        whole.wait_for_answers(service)
        things = [*_things_of(lab, node, step), *_answers_of(lab, others, port)]
        return [{"step": step, "command": command, **thing} for thing in things]

    def look_empty() -> tuple[bool, str]:
        left = sum(_TASK in (row["Labels"] or {}) for row in node.docker.api.containers())
        return not left, f"{left} containers"

    rows = look("as it was", None, lab)
    try:
        drained = lab.manager.run(drain).check()
        lab.wait_for(f"the tasks of {node.name} to go", look_empty, seconds=120)
        rows += look("drained", drained.command, rest)
        rows += look("out of the swarm", lab.take_out(node).command, rest)
    finally:
        lab.take_in(node)
    lab.wait_for_port(port)
    rows += look("in again", f"docker swarm join --token … {lab.manager.address}:2377", lab)
    return rows


def _things_of(lab: Lab, node: Node, step: str) -> list[Row]:
    """Count the listening sockets and the namespaces of one node."""
    open_sockets = sockets(lab).query("node == @node.name")
    kept = namespaces(lab, step=step).query("node == @node.name")
    counted = Counter(
        str(row.kind if row.kind in ("ingress_sbox", "task") else f"{row.kind} {row.network}")
        for row in kept.itertuples()
    )
    rows: list[Row] = [
        {"thing": "socket", "name": f"{row.port}/{row.protocol}", "count": 1}
        for row in open_sockets.itertuples()
    ]
    rows += [{"thing": "namespace", "name": name, "count": count} for name, count in counted.items()]
    return [{"node": node.name, **row} for row in rows]


def _answers_of(lab: Lab, nodes: dict[str, Node], port: int) -> list[Row]:
    """Ask each node for its published port: 1 where it answers, else 0."""
    argv = curl(f"http://127.0.0.1:{port}", TIMEOUT_S)
    answers = lab.run_all([(node.place, argv) for node in nodes.values()])
    return [
        {"node": name, "thing": "answer", "name": f"port {port} of {name}", "count": int(capture.ok)}
        for name, capture in zip(nodes, answers, strict=True)
    ]
