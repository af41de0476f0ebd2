"""What the panel asks about a service: whom its balancers choose from, and which way a request goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from labkit import experiments
from labkit.errors import UnknownNameError
from labkit.plots.topology import told
from labkit.swarm import Lab


@dataclass(frozen=True)
class Step:
    """One place that was read: its node, and in words where it is and what is there."""

    node: str
    place: str
    told: str


@dataclass(frozen=True)
class Answer:
    """The places in their order, and what a notebook asks to see the same."""

    steps: list[Step]
    where: str
    command: str
    cell: str


def of(lab: Lab, asked: Mapping[str, Any]) -> Answer:
    """Answer ``asked["ask"]`` about ``asked["service"]``.

    Raises UnknownNameError, UsageError where the service publishes no port, and what the experiment of
    the same name raises.
    """
    name = str(asked.get("ask", ""))
    if name not in QUESTIONS:
        raise UnknownNameError("question", name, list(QUESTIONS))
    service = str(asked.get("service", ""))
    return QUESTIONS[name](lab, service, asked)


def _balancers(lab: Lab, service: str, asked: Mapping[str, Any]) -> Answer:
    """Whom each node's `ingress_sbox` chooses from."""
    tasks = {task.addresses.get("ingress"): task.name for task in lab.tasks(service)}
    steps = []
    for row in experiments.balancers(lab, service).to_dict("records"):
        chosen = [
            f"{address} ({tasks.get(address, 'no running task')})"
            for address in str(row["destinations"]).split(",")
            if address
        ]
        mark = "no rule marks its packets" if pd.isna(row["mark"]) else f"mark {row['mark']:#x}"
        words = f"{mark}; {', '.join(chosen) or 'nobody to choose'}"
        steps.append(Step(str(row["node"]), str(row["place"]), words))
    cell = f'experiments.balancers(lab, "{service}")'
    return Answer(steps, "ingress_sbox of each node", "ipvsadm -ln", cell)


def _way(lab: Lab, service: str, asked: Mapping[str, Any]) -> Answer:
    """The way of one request to a node's published port."""
    lab.tasks(service)  # a wrong name is told before anything is asked
    via = lab.node(str(asked.get("node", "")))
    rows = experiments.packet(lab, service, via=via)
    steps = [
        Step(node, where, what) for node, (where, what) in zip(rows["node"], told(rows), strict=True)
    ]
    packet = f'experiments.packet(lab, "{service}", via=lab.node("{via.name}"))'
    port = int(rows["destination_port"].iloc[0])
    return Answer(
        steps,
        via.name,
        f"curl http://127.0.0.1:{port}/whoami",
        f"plots.packet({packet}, network=experiments.topology(lab));",
    )


QUESTIONS: dict[str, Callable[[Lab, str, Mapping[str, Any]], Answer]] = {
    "balancers": _balancers,
    "way": _way,
}
"""Name -> what answers it."""
