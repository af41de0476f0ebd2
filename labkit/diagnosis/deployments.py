"""What the manager itself can tell: nodes that are gone, tasks that wait, names with two services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from labkit.diagnosis.finding import Finding

if TYPE_CHECKING:
    from labkit.diagnosis.declared import Declared, Network, Service, Wanted
    from labkit.diagnosis.seen import NodeSeen

    Seen = Mapping[str, NodeSeen]

# Swarm's words for why a task waits: (words, fault, remedy, lab). It says what is wrong with each node,
# so a constraint is the reason only where no node that meets it lacks something else: the last one.
_REASONS = (
    (
        "host-mode port",
        "host-port-taken",
        "let at most one task run per node, or publish on the routing mesh",
        "12",
    ),
    ("insufficient resources", "memory-reserved", "reserve what the service needs", "10"),
    (
        "scheduling constraints",
        "constraint-unmet",
        "give a node what the constraint asks for, or take the constraint from the service",
        "10",
    ),
)


def nodes(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find nodes that the manager has lost, and those whose engine does not answer."""
    for name, state in said.states.items():
        silent = seen[name].silent if name in seen else ""
        if state != "ready" or silent:
            yield Finding(
                what=f"{name} is not there",
                where=name,
                evidence=f"docker node ls: {state}; its engine: {silent or 'answers'}",
                why="its tasks are made anew on other nodes, where there is room for them",
                remedy=f"start the engine of {name}; let it leave and join where it does not come back",
                lab="08",
            )


def unread(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find places of which nothing can be said: labkit does not understand what a tool tells there."""
    for here in seen.values():
        for place, told in here.unread.items():
            yield Finding(
                what=f"{place} shows what labkit does not understand, so nothing else is said of it",
                where=here.node.name,
                evidence=told,
                why="a table is read as a whole or not at all; what is there may be well",
                remedy="look there with the same command",
                lab="01",
            )


def ingress(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find a swarm without a routing mesh."""
    if not any(network.ingress for network in said.networks):
        yield Finding(
            what="the swarm has no ingress network",
            where="the swarm",
            evidence="docker network ls: no network has the flag ingress",
            why="a port is published on each node by the routing mesh, and that is this network",
            remedy="docker network create --ingress --driver overlay ingress; then publish again",
            lab="12",
            fault="ingress-removed",
        )


def waiting(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find tasks that ought to run and wait, each with the reason."""
    for task in said.wanted:
        if task.state in ("new", "pending", "allocated", "assigned"):
            yield _why_it_waits(said, task)


def _why_it_waits(said: Declared, task: Wanted) -> Finding:
    what, where = f"{task.name} waits, and does not run", task.service
    evidence = f"docker service ps: {task.state}{task.error and f', {task.error}'}"
    for words, fault, remedy, lab in _REASONS:
        if words in task.error:
            why = "Swarm starts a task only where a node has what it asks for"
            return Finding(what, where, evidence, why, remedy, lab, fault)
    networks = [
        said.by_name[name] for name in said.service(task.service).networks if name in said.by_name
    ]
    for network in networks:
        if not network.allocated:
            return Finding(
                what,
                where,
                f"{evidence}; docker network inspect {network.name}: no subnet",
                "no address is given out twice in a swarm: another network has this subnet",
                f"make {network.name} anew with a subnet that no other network has",
                "10",
                "subnets-overlap",
            )
    for network in networks:
        used = _used(said, network)
        if network.pool and used >= network.room:  # none: it has IPv6 alone
            told = f"{network.name} has {network.room} addresses, and {used} are in use"
            return Finding(
                what,
                where,
                f"{evidence}; {told}",
                "each service, each node and each task takes one address of an overlay",
                f"fewer tasks, or a network with a larger subnet in place of {network.name}",
                "10",
                "addresses-used-up",
            )
    return Finding(
        what,
        where,
        evidence,
        "Swarm gives a task a node and its addresses before it starts it",
        f"docker service ps --no-trunc {task.service}; journalctl -u docker on a manager",
        "10",
    )


def _used(said: Declared, network: Network) -> int:
    """Count the addresses in use: virtual IPs, load balancers (one on each node), and tasks."""
    tasks = [task for task in said.running if network.name in task.addresses]
    virtual = [service for service in said.services if network.name in service.virtual]
    return len(tasks) + len(virtual) + len({task.node.name for task in tasks})


def health(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find tasks that are kept from their service by a health check that fails."""
    failed = {name: told for here in seen.values() for name, told in here.health.items()}
    for task in said.wanted:
        if task.name not in failed:
            continue
        service = said.service(task.service)
        own = re.search(rf"(?<![\w.-]){re.escape(service.name)}(?![\w.-])", service.health)
        yield Finding(
            what=f"the health check of {task.name} fails, so its service does not have it",
            where=f"{task.name} on {task.node}",
            evidence=f"{service.health}: {failed[task.name]}",
            why="a name leads to healthy tasks only, and this check asks for its own service's name"
            if own
            else "a task gets requests only when its health check has passed",
            remedy="let the health check ask 127.0.0.1"
            if own
            else f"docker inspect {task.container[:12]} on {task.node} tells what the check says",
            lab="13",
            fault="health-needs-own-name" if own else None,
        )


def aliases(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find names that lead to two services on one network."""
    for one, other in combinations(said.services, 2):
        for network in sorted(one.networks & other.networks):
            for name in sorted(_called(one, network) & _called(other, network)):
                yield Finding(
                    what=f"the name {name} leads to {one.name} and to {other.name} on {network}",
                    where=network,
                    evidence=f"docker service inspect: {_told(one, network)}; {_told(other, network)}",
                    why="who asks for the name gets one of the two, by turns",
                    remedy="give one of them another alias, or a network of its own",
                    lab="13",
                    fault="alias-shared",
                )


def _called(service: Service, network: str) -> frozenset[str]:
    return service.aliases.get(network, frozenset()) | {service.name}


def _told(service: Service, network: str) -> str:
    named = ", ".join(sorted(service.aliases.get(network, ()))) or "none"
    return f"aliases of {service.name}: {named}"
