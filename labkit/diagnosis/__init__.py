"""Diagnosis: looks at a swarm that nobody explained, and says what is wrong with it and why.

    declared      what the manager says: networks, services, tasks
    seen          what the nodes show: rules, tables, sockets; read side by side, nothing is changed
    packets       would a packet pass these rules?
    firewalls, kernel, deployments, calls    the findings, by where they are looked for
    finding       what a finding is

Each finding compares the two: what ought to be by the manager's word, and what is in the kernel. It
knows nothing of the bench that faults are tried on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from labkit.diagnosis import calls, declared, deployments, firewalls, kernel, seen
from labkit.diagnosis.declared import Declared
from labkit.diagnosis.finding import Finding
from labkit.diagnosis.seen import NodeSeen
from labkit.schema import Column, Row, table

if TYPE_CHECKING:
    from labkit.swarm import Lab

__all__ = ["Finding", "diagnose", "findings"]

_AGAIN_S = 3.0  # from a look to the next: a task that starts is known everywhere by then

_EXAMINERS: tuple[Callable[[Declared, Mapping[str, NodeSeen]], Iterator[Finding]], ...] = (
    deployments.nodes,
    deployments.unread,
    deployments.ingress,
    deployments.waiting,
    deployments.health,
    deployments.aliases,
    calls.addresses,
    firewalls.between_nodes,
    firewalls.of_published_ports,
    firewalls.of_tasks,
    kernel.gossip,
    kernel.neighbours,
    kernel.marks,
    kernel.balancers,
    kernel.balancing,
    kernel.published,
    kernel.names,
)


def findings(lab: Lab) -> list[Finding]:
    """Return what is wrong with a swarm; nothing where it is well.

    Where something is found the swarm is looked at once more, a few seconds later, and what is told is
    what was seen both times: a task that is just starting is no finding.

    Raises:
        DaemonError: the manager refuses to tell.
        NodeUnreachable: the manager does not answer; of another node that is a finding.
        CommandFailed: a node does not have the tools that it is looked at with.
    """
    first = {(finding.what, finding.where) for finding in _look(lab)}
    if not first:
        return []
    lab.pause(_AGAIN_S)
    return [finding for finding in _look(lab) if (finding.what, finding.where) in first]


def _look(lab: Lab) -> list[Finding]:
    said = declared.of(lab)
    shown = seen.of(lab, said)
    return [finding for examine in _EXAMINERS for finding in examine(said, shown)]


@table(
    Column("what", "str", "what is wrong"),
    Column("where", "str", "the node, the task, the service or the network"),
    Column("evidence", "str", "what says so: a rule, a row of a table, Swarm's own words"),
    Column("why", "str", "why that breaks something"),
    Column("remedy", "str", "what mends it"),
    Column("lab", "str", "the number of the lab that teaches it"),
    Column("fault", "str", "the fault by which it can be met on purpose; absent: none"),
)
def diagnose(lab: Lab) -> Iterator[Row]:
    """Say what is wrong with a swarm: one row per finding, none where it is well.

    Raises what `findings` raises.
    """
    for finding in findings(lab):
        yield vars(finding)
