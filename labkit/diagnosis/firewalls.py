"""Firewalls that stop what Swarm needs, or what a service publishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labkit.diagnosis.finding import Finding
from labkit.diagnosis.packets import Packet, Rules
from labkit.diagnosis.seen import RULES, listening, vxlan_end

if TYPE_CHECKING:
    from labkit.diagnosis.declared import Declared
    from labkit.diagnosis.seen import NodeSeen

_FULL = 1450  # bytes of a packet that VXLAN has wrapped, where the underlay takes 1500


@dataclass(frozen=True)
class _Traffic:
    """What the nodes say to each other: one packet of it, what it carries, who teaches it."""

    packet: Packet
    carries: str
    lab: str
    fault: str


# Source: docs.docker.com/engine/swarm/swarm-tutorial, open protocols and ports between the hosts.
_TASKS = "all that tasks say to tasks on other nodes"
_VXLAN, _LARGE = "vxlan-dropped", "large-vxlan-dropped"
_GOSSIP = [
    _Traffic(Packet(protocol, 7946), "gossip: who has which task and address", "05", "gossip-dropped")
    for protocol in ("udp", "tcp")
]
_ESP = _Traffic(Packet("esp"), "what encrypted overlays send", "09", "esp-dropped")


def between_nodes(said: Declared, seen: Mapping[str, NodeSeen]) -> Iterator[Finding]:
    """Find what a node's firewall stops of that which the nodes say to each other."""
    tunnels = [
        _Traffic(Packet("udp", said.vxlan_port), _TASKS, "04", _VXLAN),
        _Traffic(Packet("udp", said.vxlan_port, length=_FULL), _TASKS, "09", _LARGE),
    ]
    if any(network.encrypted for network in said.networks):
        tunnels.append(_ESP)
    ends = {name: vxlan_end(seen, name) for name in seen}
    wanted = [(traffic, ends) for traffic in tunnels]
    wanted += [(traffic, _addresses(seen)) for traffic in _GOSSIP]
    for name, here in seen.items():
        found: dict[str, tuple[_Traffic, set[str]]] = {}
        for traffic, addresses in wanted:
            if rules := _stopping(here, traffic.packet, addresses):
                found.setdefault(traffic.fault, (traffic, set()))[1].update(rules)
        if _VXLAN in found:
            found.pop(_LARGE, None)  # they are stopped with all the others
        for fault, (traffic, rules) in found.items():
            yield Finding(
                what=f"the firewall of {name} stops {traffic.packet}",
                where=name,
                evidence="; ".join(sorted(rules)),
                why=f"that is {traffic.carries}; it has to pass between all nodes",
                remedy=f"let it through on {name}: remove the rule, or put one that accepts before it",
                lab=traffic.lab,
                fault=fault,
            )


def without_gossip(seen: Mapping[str, NodeSeen]) -> set[str]:
    """Return the nodes whose firewall stops gossip: what they have not heard follows from that."""
    addresses = _addresses(seen)
    return {
        name
        for name, here in seen.items()
        if any(_stopping(here, traffic.packet, addresses) for traffic in _GOSSIP)
    }


def _addresses(seen: Mapping[str, NodeSeen]) -> dict[str, str]:
    """Return the address by which Swarm has each node."""
    return {name: here.node.address for name, here in seen.items()}


def _stopping(here: NodeSeen, packet: Packet, addresses: Mapping[str, str]) -> set[str]:
    """Return the rules of a node that stop a packet from or to one of the others.

    An address that is empty is not known, nor is the interface then.
    """
    if not here.read:
        return set()
    mine = addresses[here.node.name]
    by = here.interfaces.get(mine, "")
    found: set[str | None] = set()
    for name, theirs in addresses.items():
        if name != here.node.name:
            came = replace(packet, source=theirs, destination=mine, comes_by=by)
            goes = replace(packet, source=mine, destination=theirs, leaves_by=by)
            found |= {here.filter.stops(came, "INPUT"), here.filter.stops(goes, "OUTPUT")}
    return {rule for rule in found if rule}


def of_published_ports(said: Declared, seen: Mapping[str, NodeSeen]) -> Iterator[Finding]:
    """Find what a node's DOCKER-USER stops of that which comes from outside for a published port."""
    for name, here in seen.items():
        if not here.read:
            continue
        for service in said.services:
            for port in (port for port in service.ports if port.ingress):
                packet = Packet(port.protocol, port.published)  # by any interface, from anybody
                if rule := here.filter.stops(packet, "DOCKER-USER"):
                    yield Finding(
                        what=f"{name} lets nobody outside ask port {port.published}, of {service.name}",
                        where=name,
                        evidence=rule,
                        why="DOCKER-USER comes before Docker's rules; the node itself is not stopped",
                        remedy=f"if it is not meant, remove the rule from DOCKER-USER of {name}",
                        lab="12",
                        fault="user-firewall",
                    )


def of_tasks(said: Declared, seen: Mapping[str, NodeSeen]) -> Iterator[Finding]:
    """Find rules in a task's own namespace that stop what comes for its app.

    One without an address on a network of Swarm is left out: on the network `host`, the rules and the
    sockets are the machine's.
    """
    for task in said.running:
        read = seen[task.node.name].tasks.get(task.name)
        if not (read and task.addresses):
            continue
        rules = Rules(read[RULES].text, "filter")
        for protocol, port in sorted(listening(seen, [task])[task.name]):
            if rule := rules.stops(Packet(protocol, port), "INPUT"):
                yield Finding(
                    what=f"a rule in the network namespace of {task.name} stops {protocol} port {port}",
                    where=f"{task.name} on {task.node.name}",
                    evidence=rule,
                    why="the app listens there, and nobody who asks it gets an answer",
                    remedy="remove the rule from the chain INPUT of the task's namespace; "
                    "a task that is made anew has no rule of its own",
                    lab="03",
                    fault="task-firewalled",
                )
