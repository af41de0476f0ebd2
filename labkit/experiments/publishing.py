"""Who gets in at a published port, and whom the app takes for its client (lab 12)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from labkit.experiments.asking import (
    PROBE,
    TIMEOUT_S,
    curl,
    probe,
    run_in_batches,
    tasks_by_container,
)
from labkit.parsers.whoami import read_answer
from labkit.schema import Column, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Place


@table(
    Column("step", "str", "what was changed before these probes, as the caller calls it"),
    Column("node", "str", "the node that asks"),
    Column("place", "str", "who asks there"),
    Column("entry", "str", "the node whose address is asked"),
    Column("way", "str", "the way's name"),
    Column("protocol", "str", "TCP"),
    Column("port", "int", "the published port"),
    *PROBE,
    Column("task", "str", "who answered; absent: nobody"),
    Column("server_node", "str", "the node of that task; absent: nobody answered"),
    Column("client", "str", "IPv4 that the app saw; absent: nobody answered"),
)
def published(
    lab: Lab,
    ways: Mapping[str, int],
    *,
    step: str,
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Ask each node's address for each published port of the app, from each node: one row per probe.

    A way is its name and the port.

    Raises:
        SwarmError: a node could not be asked.
    """
    nodes = list(lab.nodes.values())
    asked: list[Row] = []
    commands: list[tuple[Place, list[str]]] = []
    # The entry changes slowest, so that those which time out go together.
    for way, entry, node in product(ways, nodes, nodes):
        fixed: Row = {"step": step, "node": node.name, "place": node.place.label, "entry": entry.name}
        asked.append(fixed | {"way": way, "protocol": "TCP", "port": ways[way]})
        url = f"http://{entry.address}:{ways[way]}/whoami"
        commands.append((node.place, curl(url, timeout_s)))
    done = run_in_batches(lab, commands, timeout=60.0 + timeout_s)
    tasks = tasks_by_container(lab)
    return [
        row | probe(capture) | _who(capture, tasks) for row, capture in zip(asked, done, strict=True)
    ]


def _who(capture: Capture, tasks: Mapping[str, str]) -> Row:
    """Return who answered a request, and whom the app saw."""
    said = read_answer(capture.text.strip()) if capture.ok else None
    if said is None:
        return {"task": None, "server_node": None, "client": None}
    return {
        "task": tasks.get(said["container"]),
        "server_node": said["server_node"],
        "client": said["client"],
    }
