"""The three cases of lab 10: which fault a learner is given, and whether the learner names it rightly.

The fault follows from the learner's id and the number of the case alone, so that a marker knows it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import UsageError
from labkit.faults.catalogue import FAULTS
from labkit.faults.fault import Fault
from labkit.schema import Column, Row, table

if TYPE_CHECKING:
    from labkit.variants import Variant

CASES = (
    ("stale-fdb", "esp-dropped", "large-vxlan-dropped"),
    ("nat-flushed", "ingress-removed", "localhost-is-ipv6", "ipvs-timeout"),
    ("addresses-used-up", "health-needs-own-name", "wrong-port"),
)
"""For each case, in order, the ids of the faults that it may be."""


@dataclass(frozen=True)
class Case:
    """An injected fault without its name: `seal` is a digest, which only confirms a guess."""

    seal: str

    @classmethod
    def sealing(cls, fault: Fault) -> Case:
        """Return the case that hides this fault."""
        return cls(_digest(fault.id))

    def is_called(self, name: object) -> bool:
        """Whether the injected fault has this id; space around it does not count."""
        return _digest(str(name).strip()) == self.seal


def of_case(you: Variant, number: int) -> Fault:
    """Return the fault that is the learner's case of this number, from 1.

    Raises UsageError where there is no case of this number.
    """
    choices = _choices(number)
    digest = hashlib.sha256(f"labkit case {number} of {you.learner}".encode()).digest()
    return FAULTS[choices[digest[0] % len(choices)]]


@table(
    Column("fault", "str", "the id of the fault"),
    Column("title", "str", "what is broken"),
    Column("symptom", "str", "what people notice of it"),
)
def suspects(number: int) -> Iterator[Row]:
    """Return which faults the case of this number, from 1, may be: one row per fault.

    Raises UsageError where there is no case of this number.
    """
    for name in _choices(number):
        fault = FAULTS[name]
        yield {"fault": fault.id, "title": fault.title, "symptom": fault.symptom}


def _choices(number: int) -> tuple[str, ...]:
    if not 1 <= number <= len(CASES):
        raise UsageError(f"there are cases 1 to {len(CASES)}, and {number} was asked for")
    return CASES[number - 1]


def _digest(name: str) -> str:
    return hashlib.sha256(f"labkit fault {name}".encode()).hexdigest()[:12]
