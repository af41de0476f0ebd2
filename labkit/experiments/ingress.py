"""Who reaches whom over a network, and what the packet filters count (labs 03 and 04)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from labkit import capture as captures
from labkit.capture import words
from labkit.experiments.asking import (
    FAMILY,
    PROBE,
    TASK_PORT,
    TIMEOUT_S,
    address_of,
    curl,
    family_of,
    ping,
    place_of,
    places_of,
    probe,
    run_in_batches,
    tasks_of,
)
from labkit.schema import Column, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Task

_REACH = (
    Column("node", "str", "the node that the probe ran on"),
    Column("place", "str", "where it ran: a task's container, or a namespace of a node"),
    Column("target", "str", "the task whose address was asked"),
    Column("network", "str", "the network of that address"),
    Column("address", "str", "IPv4"),
    Column("protocol", "str", "ICMP (ping) or TCP (curl)"),
    Column("port", "int", "absent for ICMP"),
    Column("trial", "int", "from 1"),
    *PROBE,
)


@table(
    Column("node", "str", "the node that the task runs on"),
    Column("task", "str", "SERVICE.SLOT"),
    Column("container", "str", "the first twelve characters of the container's id"),
    Column("network", "str", "ingress, or an overlay that the task is on"),
    Column("address", "str", "IPv4, or IPv6 where the network has it"),
    FAMILY,
)
def addresses(tasks: Task | Iterable[Task]) -> list[Row]:
    """List where tasks are and which addresses they were given: one row per task, network and family.

    Raises:
        UsageError: what was given is no task.
        SwarmError: a node could not be asked.
    """
    return [
        {
            "node": task.node.name,
            "task": task.name,
            "container": task.container[:12],
            "network": network,
            "address": address,
            "family": family_of(address),
        }
        for task in tasks_of(tasks)
        for network, address in sorted([*task.addresses.items(), *task.ipv6_addresses().items()])
    ]


@table(*_REACH)
def reach(
    lab: Lab,
    sources: Task | Place | Iterable[Task | Place],
    targets: Task | Iterable[Task],
    *,
    networks: str | Sequence[str] = ("ingress",),
    port: int = TASK_PORT,
    trials: int = 2,
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Ping and curl every target from every source, several side by side: one row per probe.

    Raises:
        UsageError: a source or target is none, or a target has no address on a network.
        SwarmError: a node could not be asked.
    """
    places, aims = places_of(sources), tasks_of(targets)
    networks = words("networks", networks)
    asked: list[Row] = []
    commands: list[tuple[Place, list[str]]] = []
    for trial, place, target, network in product(range(1, trials + 1), places, aims, networks):
        address = address_of(target, network)
        fixed: Row = {"node": place.node.name, "place": place.label, "target": target.name}
        fixed |= {"network": network, "address": address, "trial": trial}
        asked.append(fixed | {"protocol": "ICMP", "port": None})
        commands.append((place, ping(address, timeout_s)))
        asked.append(fixed | {"protocol": "TCP", "port": port})
        commands.append((place, curl(f"http://{address}:{port}", timeout_s)))
    # The slow ones, which time out, go together.
    order = sorted(range(len(commands)), key=lambda at: (asked[at]["trial"], asked[at]["protocol"]))
    answers = run_in_batches(lab, [commands[at] for at in order], timeout=60.0 + timeout_s)
    done = dict(zip(order, answers, strict=True))
    return [row | probe(done[at]) for at, row in enumerate(asked)]


@table(Column("step", "str", "what was changed before these probes, as the caller calls it"), *_REACH)
def ports(
    lab: Lab,
    source: Task | Place,
    target: Task,
    ports: Iterable[int],
    *,
    step: str,
    network: str = "ingress",
    trials: int = 2,
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Curl several ports of one target, side by side: one row per probe.

    Raises:
        UsageError: the target has no address on the network.
        SwarmError: a node could not be asked.
    """
    place, address = place_of(source), address_of(target, network)
    asked = [(port, trial) for trial in range(1, trials + 1) for port in ports]
    answers = lab.run_all(
        [(place, curl(f"http://{address}:{port}", timeout_s)) for port, _ in asked],
        timeout=60.0 + timeout_s,
    )
    fixed: Row = {"step": step, "node": place.node.name, "place": place.label, "target": target.name}
    fixed |= {"network": network, "address": address, "protocol": "TCP"}
    return [
        fixed | {"port": port, "trial": trial} | probe(capture)
        for (port, trial), capture in zip(asked, answers, strict=True)
    ]


@table(
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where the rules are"),
    Column("table", "str", "filter, nat, mangle, …"),
    Column("chain", "str", "the chain that the rule is in"),
    Column("policy", "str", "ACCEPT or DROP; absent for a chain that is not built in"),
    Column("num", "int", "position of the rule in its chain, from 1; absent: not listed"),
    Column("packets", "int", "packets counted since the rule was made"),
    Column("bytes", "int", "bytes counted since the rule was made"),
    Column("target", "str", "what the rule does; absent: it only counts"),
    Column("protocol", "str", "by name: all, tcp, udp, icmp, sctp"),
    Column("in_interface", "str", "`*` is any"),
    Column("out_interface", "str", "`*` is any"),
    Column("source", "str", "`0.0.0.0/0` is any"),
    Column("destination", "str", "`0.0.0.0/0` is any"),
    Column("match_text", "str", "the rest, as printed: `tcp dpt:3000 ctstate NEW`"),
)
def rule_counters(place: Place, *chains: str, table: str = "filter") -> pd.DataFrame:
    """Read the rules of iptables chains with their counters: one row per rule.

    Without the name of a chain all chains are read.

    Raises:
        CommandFailed: there is no such chain or table.
        SwarmError: a node could not be asked.
    """
    argv = ["iptables", "-t", table, "-n", "-v", "-x", "-L"]
    listed = [place.run([*argv, chain]).check() for chain in chains] or [place.run(argv).check()]
    return captures.table(listed)


@table(
    Column("node", "str", "the node of the end that is looked at"),
    Column("place", "str", "its network namespace"),
    Column("chain", "str", "OUTPUT or INPUT"),
    Column("trial", "int", "from 1, in the order in which they were made"),
    Column("requests", "int", "how many curls were made, side by side"),
    Column("answered", "int", "how many of them were answered"),
    Column("packets", "int", "TCP packets that the chain's DROP rules counted meanwhile"),
)
def drops(
    lab: Lab,
    source: Task,
    target: Task,
    *,
    requests: Sequence[int] = (0, 1, 2, 4),
    network: str = "ingress",
    port: int = TASK_PORT,
    timeout_s: float = 2.0,
) -> list[Row]:
    """Curl a target N times and see how far the DROP counters for TCP rise: one row per chain and N.

    The counters are those of OUTPUT and INPUT in the network namespaces of both ends.

    Raises:
        UsageError: the target has no address on the network.
        CommandFailed: the rules could not be read.
        SwarmError: a node could not be asked.
    """
    ends = [source.sandbox, target.sandbox]
    url = f"http://{address_of(target, network)}:{port}"
    rows: list[Row] = []
    for trial, count in enumerate(requests, 1):
        before = _dropped(lab, ends)
        curls = lab.run_all([(source.place, curl(url, timeout_s))] * count)
        after = _dropped(lab, ends)
        for (node, place, chain), packets in after.items():
            rows.append(
                {
                    "node": node,
                    "place": place,
                    "chain": chain,
                    "trial": trial,
                    "requests": count,
                    "answered": sum(capture.ok for capture in curls),
                    "packets": packets - before[node, place, chain],
                }
            )
    return rows


def _dropped(lab: Lab, ends: Sequence[Place]) -> dict[tuple[str, str, str], int]:
    """Count the TCP packets that DROP rules have taken, by node, place and chain."""
    argv = ["iptables", "-t", "filter", "-n", "-v", "-x", "-L"]
    rules = captures.table([c.check() for c in lab.run_all([(end, argv) for end in ends])])
    found = {(end.node.name, end.label, chain): 0 for end in ends for chain in ("OUTPUT", "INPUT")}
    for row in rules[(rules["target"] == "DROP") & (rules["protocol"] == "tcp")].itertuples():
        found[str(row.node), str(row.place), str(row.chain)] += int(str(row.packets))
    return found


@table(
    Column("node", "str", "the task's node"),
    Column("place", "str", "the task's container"),
    Column("interface", "str", "its name in the container"),
    Column("address", "str", "IPv4, or IPv6 where a network of the task has it"),
    FAMILY,
    Column("network", "str", "ingress, an overlay, docker_gwbridge, or loopback"),
    Column("mtu", "int", "bytes"),
    Column("default", "bool", "the default route of that family leaves by it"),
)
def interfaces(task: Task) -> list[Row]:
    """List a task's interfaces, each with the network that it belongs to: one row per address.

    Raises:
        CommandFailed: `ip` failed in the container.
        SwarmError: the node could not be asked.
    """
    networks: dict[str, str] = {}  # of the interfaces, by the IPv4 addresses that Swarm gave
    by_address = {address: network for network, address in task.addresses.items()}
    rows: list[Row] = []
    for option in ("-4", "-6") if task.ipv6 else ("-4",):
        links = task.run(["ip", option, "addr"]).check().table
        route = ["ip", "route"] if option == "-4" else ["ip", "-6", "route"]
        routes = task.run(route).check().table
        default = set(routes[routes["destination"] == "default"]["interface"])
        for link in links.itertuples():
            name, address = str(link.interface), str(link.address)
            if address in by_address:
                networks[name] = by_address[address]
            network = "loopback" if name == "lo" else networks.get(name, "docker_gwbridge")
            rows.append(
                {
                    "node": task.node.name,
                    "place": task.name,
                    "interface": name,
                    "address": address,
                    "family": family_of(address),
                    "network": network,
                    "mtu": link.mtu,
                    "default": name in default,
                }
            )
    return rows


@table(
    Column("node", "str", "the source's node"),
    Column("place", "str", "where it was looked for"),
    Column("network", "str", "ingress or an overlay"),
    Column("piece", "str", "VXLAN device, neighbour entry, forwarding entry, DROP rule"),
    Column(
        "count", "int", "how many there are; for entries and rules: of the target's or source's address"
    ),
    Column("found", "str", "the first of them, as its tool printed it; absent: there is none"),
)
def plumbing(source: Task, target: Task, *, networks: str | Sequence[str] = ("ingress",)) -> list[Row]:
    """Count what networks have so that a source reaches a target on another node: one row per piece.

    Raises:
        UsageError: one of the tasks has no address on a network.
        CommandFailed: one of the tools failed.
        UnknownNameError: the source's node has no such network.
        SwarmError: a node could not be asked.
    """
    rules = source.sandbox.run(["iptables", "-S"]).check()
    rows: list[Row] = []
    for network in words("networks", networks):
        mine, other = address_of(source, network), address_of(target, network)
        overlay = source.node.overlay(network)
        links = overlay.run(["ip", "-d", "link", "show", "type", "vxlan"]).check()
        neighbours = overlay.run(["ip", "neigh", "show", "dev", "vxlan0"]).check()
        entry = next((line for line in neighbours.lines if line.startswith(f"{other} ")), "")
        mac = entry.partition("lladdr ")[2].partition(" ")[0]
        forwarding = overlay.run(["bridge", "fdb", "show", "dev", "vxlan0"]).check()
        looked = (
            (overlay.label, "VXLAN device", [x.strip() for x in links.lines if "vxlan id" in x]),
            (overlay.label, "neighbour entry", [entry] if entry else []),
            (
                overlay.label,
                "forwarding entry",
                [x for x in forwarding.lines if mac and x.startswith(mac) and "dst" in x],
            ),
            (
                source.sandbox.label,
                "DROP rule",
                [x for x in rules.lines if f"{mine}/32" in x and x.endswith("DROP")],
            ),
        )
        for place, piece, found in looked:
            row: Row = {"node": source.node.name, "place": place, "network": network, "piece": piece}
            rows.append({**row, "count": len(found), "found": found[0].strip() if found else None})
    return rows
