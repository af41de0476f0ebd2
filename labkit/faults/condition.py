"""What stands on a swarm, line by line, so that what a person changed beside the fault can be told.

A line is a rule of iptables on a node, a service with a digest of its specification, a task with its
container, an overlay network, or a node with its labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.swarm import Lab


def of(lab: Lab) -> list[str]:
    """Return the lines of a swarm as it stands now."""
    saved = lab.run_all((node.place, ["iptables-save"]) for node in lab.nodes.values())
    api = lab.manager.docker.api
    services = api.services()
    tasks = api.tasks(filters={"desired-state": "running"})
    names = {row["ID"]: row["Spec"]["Name"] for row in services}
    lines = [f"{c.node}: {rule}" for c in saved for rule in _rules(c.check().lines)]
    lines += [f"service {row['Spec']['Name']}: as {_digest(row['Spec'])}" for row in services]
    lines += [_task(names[row["ServiceID"]], row) for row in tasks if row.get("ServiceID") in names]
    overlays = api.networks(filters={"driver": "overlay"})
    lines += [f"network {row['Name']}: {_subnets(row)}" for row in overlays]
    for row in api.nodes():
        name = lab.called(row["Description"]["Hostname"])
        lines.append(f"node {name}: as {_digest(row['Spec'])}")
    return sorted(set(lines))


def changes(before: Iterable[str], after: Iterable[str], *, remade: Sequence[str] = ()) -> list[str]:
    """Return what is gone and what is new, a line each; what is about `remade` services is left out."""
    ours = tuple(start for name in remade for start in (f"service {name}:", f"task {name}."))
    gone, new = set(before) - set(after), set(after) - set(before)
    told = [f"gone: {line}" for line in gone] + [f"new: {line}" for line in new]
    return sorted(line for line in told if not line.partition(": ")[2].startswith(ours))


def _rules(lines: Iterable[str]) -> Iterable[str]:
    """Give the rules of `iptables-save` with their tables; counters and comments are left out."""
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A"):
            yield f"{table} {line.strip()}"


def _task(service: str, row: dict[str, Any]) -> str:
    container = (row["Status"].get("ContainerStatus") or {}).get("ContainerID") or "no container"
    slot = row.get("Slot") or row["NodeID"]
    return f"task {service}.{slot}: {container[:12]}"


def _subnets(row: dict[str, Any]) -> str:
    return ", ".join(c["Subnet"] for c in (row["IPAM"] or {}).get("Config") or () if c.get("Subnet"))


def _digest(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
