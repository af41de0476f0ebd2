"""Every fault that the kit knows, by its id.

To add a fault: write its steps, its evidence and its entry in the module of what it breaks (`packets`,
`kernel_tables`, `services`), with the checks that it turns red, its own check first;
`tests/live/test_faults.py` then proves all of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from labkit.errors import UnknownNameError
from labkit.faults import balancing, deployments, kernel_tables, packets, services
from labkit.faults.fault import Fault
from labkit.faults.health import CHECKS
from labkit.schema import Column, Row, table

_BY_WHAT_BREAKS = (packets, kernel_tables, balancing, services, deployments)
FAULTS: dict[str, Fault] = {fault.id: fault for module in _BY_WHAT_BREAKS for fault in module.FAULTS}


def of(name: str) -> Fault:
    """Return the fault with this id.

    Raises UnknownNameError, whose hint names the ids that are most alike.
    """
    if name in FAULTS:
        return FAULTS[name]
    near = difflib.get_close_matches(name, FAULTS, n=2, cutoff=0.4)
    raise UnknownNameError("fault", name, FAULTS, hint=f"try {' or '.join(near)}" if near else "")


@table(
    Column("fault", "str", "the id of the fault"),
    Column("title", "str", "what is broken"),
    Column("check", "str", "the id of the check"),
    Column("red", "bool", "the fault turns this check red"),
    Column("either", "bool", "the check may turn red or not, by Docker version and by timing"),
)
def signatures() -> Iterator[Row]:
    """Return which checks each fault turns red: one row per fault and check, in their given order."""
    for fault in FAULTS.values():
        for check in CHECKS:
            yield {
                "fault": fault.id,
                "title": fault.title,
                "check": check,
                "red": check in fault.red,
                "either": check in fault.either,
            }
