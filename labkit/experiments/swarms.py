"""What a swarm is made of: members, sockets, networks and network namespaces (lab 01)."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from labkit.experiments.asking import TIMEOUT_S, curl

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Node, Place

_FILES = ["find", "/run/docker/netns", "-mindepth", "1", "-printf", "%F %i %f\n"]


def members(lab: Lab) -> pd.DataFrame:
    """Who is in the swarm, who may give it commands and who works for it: a row a node.

    node            str
    role            str    manager or worker
    availability    str    active, pause, drain
    address         str    IPv4, between the nodes
    argv            str    a command about the swarm, typed on this node
    code            int    its exit code
    stderr          str    what it said against it
    tasks           int    tasks that run on the node
    """
    import pandas as pd

    argv = ["docker", "node", "ls"]
    said = lab.run_all([(node.place, argv) for node in lab.nodes.values()])
    rows = {row["Description"]["Hostname"]: row for row in lab.manager.docker.api.nodes()}
    running = [
        task["NodeID"]
        for task in lab.manager.docker.api.tasks(filters={"desired-state": "running"})
        if task["Status"]["State"] == "running"
    ]
    return pd.DataFrame(
        [
            {
                "node": node.name,
                "role": rows[node.name]["Spec"]["Role"],
                "availability": rows[node.name]["Spec"]["Availability"],
                "address": node.address,
                "argv": capture.command,
                "code": capture.code,
                "stderr": capture.stderr.strip(),
                "tasks": running.count(rows[node.name]["ID"]),
            }
            for node, capture in zip(lab.nodes.values(), said, strict=True)
        ]
    )


def sockets(lab: Lab) -> pd.DataFrame:
    """What listens for other machines in the nodes' own namespaces: a row a node, protocol and port.

    Sockets that are bound to loopback are left out: nobody reaches them from outside.

    node        str
    role        str    manager, worker, or none: in no swarm
    protocol    str    tcp or udp
    port        int
    program     str    that holds the socket; absent: none does, it is the kernel's own
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


def networks(lab: Lab, *, step: str) -> pd.DataFrame:
    """What `docker network ls` knows on each node: a row a node and network.

    step       str    what was done before, as the caller calls it
    node       str
    network    str
    driver     str    overlay, bridge, host, null
    scope      str    swarm: the same on every node that has it; local: the node's own
    subnet     str    absent: none
    """
    import pandas as pd

    rows = [
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
    return pd.DataFrame(rows)


def namespaces(lab: Lab, *, step: str) -> pd.DataFrame:
    """The network namespaces that Docker keeps on each node, when they have come to rest: a row each.

    step       str    what was done before, as the caller calls it
    node       str
    name       str    of the file in /run/docker/netns
    inode      int    the kernel's number of the namespace
    kind       str    ingress_sbox, overlay, load balancer, task
    network    str    of an overlay or a load balancer; absent: a task's
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []

    def look() -> tuple[bool, str]:
        rows[:] = []
        unsettled = []
        known = {n["Id"]: n["Name"] for n in lab.manager.docker.api.networks()}
        listed = lab.run_all([(node.place, _FILES) for node in lab.nodes.values()])
        for node, capture in zip(lab.nodes.values(), listed, strict=True):
            files = [line.split() for line in capture.check().lines]
            # A file stays for up to a minute when its namespace is gone, and is then an ordinary one.
            kept = [(int(inode), name) for kind, inode, name in files if kind == "nsfs"]
            here = [(inode, name, *kind_of(name, known)) for inode, name in kept]
            tasks = sum(kind == "task" for _, _, kind, _ in here)
            containers = len(node.docker.api.containers())
            others = any(network not in (None, "ingress") for *_, network in here)
            if tasks != containers or (others and not containers):
                names = ", ".join(name for _, name in kept)
                unsettled.append(f"{node.name}: {containers} containers; namespaces {names}")
            for inode, name, kind, network in here:
                row = {"step": step, "node": node.name, "name": name, "inode": inode}
                rows.append({**row, "kind": kind, "network": network})
        return not unsettled, "; ".join(unsettled)

    lab.wait_for("the nodes' namespaces to fit their containers", look, seconds=60)
    columns = ["step", "node", "name", "inode", "kind", "network"]
    return pd.DataFrame(rows, columns=columns).astype({"network": "str"})


def kind_of(name: str, known: dict[str, str]) -> tuple[str, str | None]:
    """Say what the file of a namespace belongs to, and to which network, by libnetwork's naming."""
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
    return [c["Subnet"] for c in (network["IPAM"] or {}).get("Config") or () if c.get("Subnet")]


def views(lab: Lab, places: Iterable[Place]) -> pd.DataFrame:
    """What one sees of the network from several places: a row a place and address.

    node         str
    place        str
    inode        int    the kernel's number of the place's network namespace
    interface    str
    address      str    IPv4
    network      str    that the address belongs to; `underlay` is between the nodes
    """
    import pandas as pd

    chosen = list(places)
    asked = [["readlink", "/proc/self/ns/net"], ["ip", "-4", "addr"]]
    captures = lab.run_all([(place, argv) for place in chosen for argv in asked])
    subnets = {
        node.name: _networks_of(lab, node) for node in {p.node.name: p.node for p in chosen}.values()
    }
    rows = []
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
    return pd.DataFrame(rows)


def _networks_of(lab: Lab, node: Node) -> dict[str, str]:
    """Map subnets to networks: the swarm's, and those that a node has for itself."""
    rows = [n for n in lab.manager.docker.api.networks() if n["Scope"] == "swarm"]
    rows += [n for n in node.docker.api.networks() if n["Scope"] == "local"]
    return {subnet: row["Name"] for row in rows for subnet in _subnets(row)}


def membership(lab: Lab, node: Node, *, service: str, port: int) -> pd.DataFrame:
    """Drain a worker, take it out of the swarm, take it in again: a row a step and thing looked for.

    At the end the node is a worker as before, also when something fails on the way.

    step       str    as it was, drained, out of the swarm, in again
    command    str    what led to the step; absent for the first
    node       str    where the thing was looked for
    thing      str    socket, namespace, answer
    name       str    2377/tcp; ingress_sbox, overlay NETWORK, …; port N of a node
    count      int    how many there were; of answers: 1 answered, 0 not
    """
    import pandas as pd

    others = {name: other for name, other in lab.nodes.items() if name != node.name}
    rest = dataclasses.replace(lab, nodes=others)
    replicas = len(lab.tasks(service))
    asked = [(o.place, curl(f"http://127.0.0.1:{port}", TIMEOUT_S)) for o in others.values()]
    lab.wait_for_port(port)

    def look(step: str, command: str | None, whole: Lab) -> list[dict[str, Any]]:
        lab.wait_for_tasks(service, replicas)
        whole.wait_for_answers(service)
        held = sockets(lab).query("node == @node.name")
        kept = namespaces(lab, step=step).query("node == @node.name")
        called = [
            str(row.kind if row.kind in ("ingress_sbox", "task") else f"{row.kind} {row.network}")
            for row in kept.itertuples()
        ]
        counted = [(node.name, "socket", f"{row.port}/{row.protocol}", 1) for row in held.itertuples()]
        counted += [
            (node.name, "namespace", name, called.count(name)) for name in dict.fromkeys(called)
        ]
        for other, capture in zip(others.values(), lab.run_all(asked), strict=True):
            counted.append((other.name, "answer", f"port {port} of {other.name}", int(capture.ok)))
        names = ("node", "thing", "name", "count")
        return [{"step": step, "command": command, **dict(zip(names, c, strict=True))} for c in counted]

    def look_empty() -> tuple[bool, str]:
        left = len(node.docker.api.containers())
        return not left, f"{left} containers"

    rows = look("as it was", None, lab)
    try:
        argv = ["docker", "node", "update", "--availability", "drain", node.name]
        drain = lab.manager.run(argv).check()
        lab.wait_for(f"the tasks of {node.name} to go", look_empty, seconds=120)
        rows += look("drained", drain.command, rest)
        rows += look("out of the swarm", lab.take_out(node).command, rest)
    finally:
        lab.take_in(node)
    lab.wait_for_port(port)
    rows += look("in again", f"docker swarm join --token … {lab.manager.address}:2377", lab)
    return pd.DataFrame(rows)
