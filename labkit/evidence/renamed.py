"""What cells called before a name changed, so that recordings made before still answer them.

A recording files what a cell asked under the text of that cell. Where a lab's cell has changed by
nothing but a name, its former text is found here, and with it the answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# now -> in recordings made before December 2026
FORMER: Mapping[str, str] = {
    "experiments.ablation": "experiments.without",
    "experiments.idle_connections": "experiments.idle",
    "experiments.leave_and_rejoin": "experiments.membership",
    "experiments.namespace_views": "experiments.views",
    "experiments.neighbour_tables": "experiments.neighbours",
    "experiments.nodes": "experiments.members",
    "experiments.reach_by_entry": "experiments.neighbour",
    "experiments.technique_counters": "experiments.evidence",
    "plots.ablation": "plots.without",
    "plots.idle_connections": "plots.idle",
    "plots.leave_and_rejoin": "plots.membership",
    "plots.namespace_views": "plots.views",
    "plots.neighbour_tables": "plots.neighbours",
    "plots.reach_by_entry": "plots.neighbour",
    "capture.table(": "probes.table(",
    "import capture, checks, experiments, plots": "import checks, experiments, plots, probes",
}
_NAMES = re.compile(
    "|".join(rf"\b{re.escape(name)}" + (r"\b" if name[-1] != "(" else "") for name in FORMER)
)


def former(text: str) -> str:
    """Return a cell's text with the former names; the same text where no name has changed."""
    return _NAMES.sub(lambda found: FORMER[found[0]], text)
