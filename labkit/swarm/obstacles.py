"""Why the tasks of a service will never run, as Swarm tells it of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

# What no new try on the same nodes mends; each is the engine's own word.
_FINAL = (
    "No such image",
    "executable file not found",
    "no such file or directory",
    "invalid mount config",
)
# Another reason may go by itself, a subnet that the network before it has not given back: so many tasks
# of one slot, each made in the place of the one before, have to give it.
_TRIES = 3
_ENDED = ("task: non-zero exit", "task: unhealthy")  # it did run, and may do so longer the next time


def obstacle(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return why tasks of a service cannot start; empty where none was refused for good.

    `rows` are the tasks as the API lists them, those that were replaced too. What was refused before
    the service was changed, or before its slot had a task that runs, does not count.
    """
    slots: dict[Any, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: str(row.get("CreatedAt"))):
        slots.setdefault(row.get("Slot") or row.get("NodeID"), []).append(row)
    for tasks in slots.values():
        newest = tasks[-1]
        if newest["Status"]["State"] == "running":
            continue
        refused = [_refusal(task) for task in tasks if task.get("Spec") == newest.get("Spec")]
        told = Counter(filter(None, refused))
        for reason, times in told.items():
            if times >= _TRIES or any(word in reason for word in _FINAL):
                return reason
    return ""


def _refusal(task: Mapping[str, Any]) -> str:
    """Return why a task did not start; empty where it did, or may do so yet."""
    status = task["Status"]
    reason = str(status.get("Err") or "").strip()
    ended = status["State"] in ("rejected", "failed") and not reason.startswith(_ENDED)
    return f"{status['State']}: {reason}" if ended and reason else ""


def stopped(update: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """Say why Swarm stopped an update or takes it back: its own words, and those of the last task."""
    told = sorted(
        (str(row["Status"].get("Timestamp")), row["Status"].get("Err"))
        for row in rows
        if row["Status"].get("Err")
    )
    why = f" ({told[-1][1]})" if told else ""
    return f"{update['State']}: {update.get('Message', '')}{why}"


def keeps_tasks(service: Mapping[str, Any]) -> bool:
    """Whether the last change of a service leaves its tasks be: another label, say, or count."""
    now, before = service["Spec"], service.get("PreviousSpec") or {}
    parts = ("TaskTemplate", "EndpointSpec")
    return bool(before) and all(now.get(part) == before.get(part) for part in parts)
