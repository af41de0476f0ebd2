"""What is asked to learn whether the tasks of a service answer, and from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit.errors import UnknownNameError, UsageError
from labkit.swarm import membership
from labkit.swarm.places import Node, Place, Task

if TYPE_CHECKING:
    from labkit.swarm.lab import Lab


def wanted(row: Mapping[str, Any]) -> int:
    """Return how many tasks of a service have to run before it is asked, from what the API lists of it.

    Of a global service it is one: the list does not say how many nodes may have a task. Raises
    UsageError where the service is to have none.
    """
    replicas = int(row["Spec"].get("Mode", {}).get("Replicated", {}).get("Replicas", 1))
    if not replicas:
        name = row["Spec"]["Name"]
        raise UsageError(
            f"{name} is to have no task (replicas 0), so none will answer",
            hint=f"docker service scale {name}=1",
        )
    return replicas


def questions(
    nodes: Mapping[str, Node], tasks: Sequence[Task], port: int
) -> list[tuple[Place, list[str]]]:
    """Return commands that ask each task at each address it has; they end well where all answer.

    Asked is from the namespaces that balance the load, so that the tasks' own caches stay untouched; a
    task without an address asks itself. Raises UnknownNameError where a node with a task lacks one.
    """
    asked: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        for network, address in task.addresses.items():
            theirs = dict.fromkeys(t.node.name for t in tasks)
            for node in nodes if network == task.ingress else theirs:
                asked.setdefault((node, network), []).append(address)
    # One curl asks many: under emulation its start costs more than the asking.
    curl = ["curl", "-sS", "--fail-early", "-m", "5"]
    commands: list[tuple[Place, list[str]]] = []
    for (node, network), addresses in asked.items():
        try:
            balancer = nodes[node].load_balancer(network)
        except UnknownNameError:
            if any(task.node.name == node for task in tasks):
                raise
            continue  # a routing mesh made anew comes to a node with the first task there
        commands.append((balancer, [*curl, *(f"http://{address}:{port}" for address in addresses)]))
    alone = [task.sandbox for task in tasks if not task.addresses]
    return commands + [(place, [*curl, f"http://127.0.0.1:{port}"]) for place in alone]


def wait_for_port(lab: Lab, port: int) -> None:
    """Wait until a published port answers on every node; raises WaitTimeout."""
    argv = ["curl", "-sS", "-m", "5", f"http://127.0.0.1:{port}"]

    def look() -> tuple[bool, str]:
        asked = lab.run_all([(node.place, argv) for node in lab.nodes.values()])
        silent = [f"{capture.node}: {capture.stderr.strip()}" for capture in asked if not capture.ok]
        return not silent, "; ".join(silent)

    def without() -> list[str]:
        alone = [node.name for node in lab.nodes.values() if not membership.ingress_of(node)]
        return [f"{name} has no part in the routing mesh: no ingress network there" for name in alone]

    lab.wait_for(f"port {port} to answer on every node", look, seconds=120, log=without)
