"""What the nodes show: each node's rules, the tables of each overlay and balancer, each task's sandbox.

Everything is read and nothing changed. All commands of a node run side by side.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from labkit import parsers
from labkit.diagnosis.packets import Rules
from labkit.errors import SwarmError
from labkit.experiments.swarms import NAMESPACE_FILES, namespaces_of
from labkit.parsers.dispatch import parser_of
from labkit.swarm.places import Place
from labkit.transport.base import DaemonError, TaskReplaced

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.diagnosis.declared import Declared
    from labkit.swarm import Lab, Node, Task

RULES = ("iptables-save",)
MARKS = ("iptables-save", "-t", "mangle")
NEIGHBOURS = ("ip", "neigh")  # of all devices: an overlay has a vxlan0, vxlan1, … for each subnet
FORWARDING = ("bridge", "fdb", "show")
SERVERS = ("ipvsadm", "-ln")
TIMEOUTS = ("ipvsadm", "-l", "--timeout")
FORWARDS = ("sysctl", "-n", "net.ipv4.ip_forward")
LISTENING = ("ss", "-lntu")
LINKS = ("ip", "-j", "addr")
"""As JSON: the text, with -d, has a line of its own for each kind of interface that there may be."""

log = logging.getLogger(__name__)

_LAST = 200  # characters of what a health check said

Argv = tuple[str, ...]


@dataclass(frozen=True)
class Namespace:
    """An overlay's namespace, or the one that balances a network, with what was read in it."""

    network: str
    place: Place
    read: Mapping[Argv, Capture]

    @cached_property
    def neighbours(self) -> dict[str, str]:
        """An overlay's neighbours: address -> MAC address."""
        rows = self.read[NEIGHBOURS].table.dropna(subset="mac")
        rows = rows[rows["interface"].str.startswith("vxlan")]
        return dict(zip(rows["address"], rows["mac"], strict=True))

    @cached_property
    def forwarding(self) -> dict[str, str]:
        """An overlay's FDB: MAC address -> address of the node."""
        rows = self.read[FORWARDING].table.dropna(subset="vtep")
        return dict(zip(rows["mac"], rows["vtep"], strict=True))


@dataclass(frozen=True)
class NodeSeen:
    """What one node shows; `silent` is why it does not, and then there is nothing else.

    Nor is there anything where the node's own rules or interfaces are in `unread`.
    """

    node: Node
    silent: str = ""
    read: Mapping[Argv, Capture] = field(default_factory=dict)
    overlays: Sequence[Namespace] = ()
    balancers: Sequence[Namespace] = ()
    tasks: Mapping[str, Mapping[Argv, Capture]] = field(default_factory=dict)
    """What was read in the sandbox of each task that runs here, by the task's name."""
    health: Mapping[str, str] = field(default_factory=dict)
    """What the last health check of a task that is starting said, where it failed; by the name."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Why a place is left out whose tables are not understood; by the place's label."""

    @cached_property
    def filter(self) -> Rules:
        """The rules of the node's own firewall."""
        return Rules(self.read[RULES].text, "filter")

    @cached_property
    def doors(self) -> frozenset[int]:
        """The published ports that the node leads into the routing mesh."""
        rows = self.read[RULES].table
        rows = rows[(rows["table"] == "nat") & (rows["chain"] == "DOCKER-INGRESS")]
        return frozenset(map(int, rows[rows["target"] == "DNAT"]["dport"].dropna()))

    @cached_property
    def interfaces(self) -> dict[str, str]:
        """The node's own addresses, each with its interface."""
        if not self.read:
            return {}
        rows = self.read[LINKS].table.dropna(subset="address")
        return dict(zip(rows["address"], rows["interface"], strict=True))

    @cached_property
    def ends(self) -> frozenset[str]:
        """Where VXLAN may end that comes to the node: --data-path-addr names any address of its own."""
        return frozenset({self.node.address, *self.interfaces})


def listening(seen: Mapping[str, NodeSeen], tasks: Iterable[Task]) -> dict[str, set[tuple[str, int]]]:
    """Return at which protocols and ports tasks can be asked, by their names; not of one that ends."""
    return {
        task.name: _sockets(here[LISTENING])
        for task in tasks
        if (here := seen[task.node.name].tasks.get(task.name))
    }


def _sockets(listed: Capture) -> set[tuple[str, int]]:
    rows = listed.table
    rows = rows[~rows["local_address"].str.match(r"127\.|::1$")]
    return {
        (str(kind), int(port)) for kind, port in zip(rows["netid"], rows["local_port"], strict=True)
    }


def vxlan_end(seen: Mapping[str, NodeSeen], name: str) -> str:
    """Return the address to which other nodes send what is for the tasks of a node.

    Empty where none has heard of it, or where they have heard of several.
    """
    every = (space for here in seen.values() for space in here.overlays)
    found = {node for space in every for node in space.forwarding.values()} & seen[name].ends
    return found.pop() if len(found) == 1 else ""


def of(lab: Lab, said: Declared) -> dict[str, NodeSeen]:
    """Read what every node shows, by the nodes' names; a node that does not answer is silent."""

    def look(node: Node) -> NodeSeen:
        try:
            return _seen(node, said)
        except SwarmError as problem:
            log.info("%s does not show what it has: %s", node.name, problem)
            return NodeSeen(node, silent=str(problem.args[0]))

    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        return {found.node.name: found for found in pool.map(look, lab.nodes.values())}


def _seen(node: Node, said: Declared) -> NodeSeen:
    known = {network.id: network.name for network in said.networks}
    rows = namespaces_of(node.run(NAMESPACE_FILES).check().lines, known)
    mesh = next((network.name for network in said.networks if network.ingress), "")
    overlays, balancers = [], []
    for row in rows:
        name, network = row["name"], row["network"]
        place = Place(node, f"{node.name}/{name}", netns=f"/run/docker/netns/{name}")
        if row["kind"] == "overlay" and network in said.by_name:
            overlays.append((network, place))
        elif row["kind"] == "ingress_sbox" and mesh:
            balancers.append((mesh, place))
        elif row["kind"] == "load balancer" and network in said.by_name:
            balancers.append((network, place))
    tasks = [task for task in said.running if task.node.name == node.name]
    wanted: list[tuple[Place, Argv]] = [(node.place, argv) for argv in (RULES, LINKS)]
    wanted += [(place, argv) for _, place in overlays for argv in (NEIGHBOURS, FORWARDING)]
    wanted += [(place, argv) for _, place in balancers for argv in (MARKS, SERVERS, TIMEOUTS)]
    wanted += [(place, FORWARDS) for network, place in balancers if network == mesh]
    wanted += [(task.sandbox, argv) for task in tasks for argv in (RULES, LISTENING, LINKS)]
    read = _read(wanted)
    for capture in read[node.name].values():
        capture.check()
    unread = {place: told for place, here in read.items() if (told := _not_understood(here))}
    if node.name in unread:
        return NodeSeen(node, unread=unread)
    whole = {place: here for place, here in read.items() if place not in unread and _is_whole(here)}
    return NodeSeen(
        node,
        read=read[node.name],
        overlays=list(_namespaces(overlays, whole)),
        balancers=list(_namespaces(balancers, whole)),
        tasks={task.name: here for task in tasks if (here := whole.get(task.sandbox.label))},
        health=dict(_failed_checks(node, said)),
        unread=unread,
    )


def _read(wanted: Sequence[tuple[Place, Argv]]) -> dict[str, dict[Argv, Capture]]:
    """Run commands side by side, by the labels of their places; nothing of a task that just ends."""
    read: dict[str, dict[Argv, Capture]] = {}
    gone = set()
    for running in [place.start(argv) for place, argv in wanted]:
        try:
            read.setdefault(running.place.label, {})[running.argv] = running.result()
        except TaskReplaced as problem:
            log.info("%s", problem)
            gone.add(running.place.label)
    return {place: here for place, here in read.items() if place not in gone}


def _failed_checks(node: Node, said: Declared) -> Iterator[tuple[str, str]]:
    for task in said.wanted:
        if task.state == "starting" and task.node == node.name and task.container:
            try:
                state = node.docker.api.inspect_container(task.container)["State"]
            except DaemonError as problem:
                if problem.status != 404:
                    raise
                continue  # it was replaced just now
            health = state.get("Health") or {}
            if health.get("FailingStreak"):  # which does not count what fails in the start period
                yield task.name, health["Log"][-1]["Output"].strip()[-_LAST:]


def _is_whole(read: Mapping[Argv, Capture]) -> bool:
    """Whether every command of a place has ended well; as a rule one fails where a task just ends."""
    failed = [capture for capture in read.values() if not capture.ok]
    for capture in failed:
        log.info("%s in %s: code %d, %s", capture.command, capture.place, capture.code, capture.stderr)
    return not failed


def _not_understood(read: Mapping[Argv, Capture]) -> str:
    """Return what of a place's tables no parser understands; empty where all is understood."""
    for capture in read.values():
        if capture.ok and parser_of(capture.argv):
            try:
                parsers.parse(capture.argv, capture.text)
            except parsers.ParseError as problem:
                return f"{capture.command}: {problem.args[0]}"
    return ""


def _namespaces(
    chosen: Sequence[tuple[str, Place]], whole: Mapping[str, Mapping[Argv, Capture]]
) -> Iterator[Namespace]:
    for network, place in chosen:
        if place.label in whole:
            yield Namespace(network, place, whole[place.label])
