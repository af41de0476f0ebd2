"""A finding: what is wrong, where that was seen, why it matters, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a swarm; `what` and `where` are the same at the next look."""

    what: str
    where: str
    """The node, the task or the service that it was seen at."""
    evidence: str
    """What says so: a rule, a row of a table, Swarm's own words."""
    why: str
    remedy: str
    lab: str
    """The number of the lab that teaches it."""
    fault: str | None = None
    """The id of the fault (labkit.faults) by which it can be met on purpose."""
