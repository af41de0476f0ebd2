"""When a submission was handed in, as the exchange noted it, and what lateness costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from pathlib import Path

from labkit.errors import UnknownNameError, UsageError
from labkit.evidence.files import open_plain

TIMESTAMP = "timestamp.txt"
"""The file beside a notebook in which nbgrader, and `labkit class collect`, note when it came."""

_HINT = "--due 2026-12-01T23:59 for all labs, --due 03=2026-12-01T23:59 for one"
_COLLECTED = "submitted"  # nbgrader's folder of what was collected: submitted/STUDENT/ASSIGNMENT
_MOST_BYTES = 200
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Due:
    """When labs are due, and what of the points goes for each day that has begun after that."""

    by_lab: Mapping[str, datetime] = field(default_factory=dict)
    """By the lab's name, "" for every other lab; without a time zone it is in this machine's."""
    percent_a_day: float = 0.0

    def date(self, lab: str) -> datetime | None:
        """Return when a lab is due; None where it never is."""
        return self.by_lab.get(lab, self.by_lab.get(""))

    def days_late(self, lab: str, handed_in: datetime | None) -> int:
        """Return how many days late something came, begun ones too; none where that is unknown.

        Where the date names no time zone, they end at its time by the clock on the wall, also when
        summer time ends in between.
        """
        due = self.date(lab)
        if due is None or handed_in is None:
            return 0
        came = handed_in if due.tzinfo else handed_in.astimezone().replace(tzinfo=None)
        return -(-max(came - due, timedelta()) // _DAY)

    def lost(self, points: float, days: int) -> float:
        """Return how many of some points go for so many days."""
        return points * min(1.0, days * self.percent_a_day / 100)


def read(words: Sequence[str], labs: Sequence[str]) -> dict[str, datetime]:
    """Read DATE and LAB=DATE; a date that names no time zone stays without one, and is this machine's.

    Raises UsageError for what is no date, UnknownNameError for a lab that is not among `labs`.
    """
    found = {}
    for word in words:
        name, mark, date = word.rpartition("=")
        known = [lab for lab in labs if name in (lab, lab[:2])]
        if mark and not known:
            raise UnknownNameError("lab", name, labs, hint=_HINT)
        try:
            moment = datetime.fromisoformat(date)
            in_utc = moment.astimezone(UTC)  # raises where the calendar does not have it
        except (ValueError, OverflowError) as problem:
            raise UsageError(f"{date!r} is no date", hint=_HINT) from problem
        found[known[0] if mark else ""] = in_utc if moment.tzinfo else moment
    return found


def handed_in(notebook: Path) -> datetime | None:
    """Return when a notebook was handed in; None where nobody but its learner has noted that.

    A course folder has it from the exchange; elsewhere such a file is the learner's own.
    """
    if notebook.parts[-4:-3] != (_COLLECTED,):
        return None
    with suppress(OSError, UsageError, ValueError), open_plain(notebook.with_name(TIMESTAMP)) as file:
        return time_of(file.read(_MOST_BYTES).decode()).replace(tzinfo=UTC)
    return None


def time_of(text: str) -> datetime:
    """Read a time as nbgrader writes it: in UTC, without a time zone; raises ValueError."""
    from nbgrader.utils import parse_utc

    try:
        found: datetime = parse_utc(text.strip())
    except ArithmeticError as problem:  # of numbers that are too large, in int and in decimal
        raise ValueError(f"{text!r} is no time: {problem}") from problem
    if not MINYEAR < found.year < MAXYEAR:
        raise ValueError(f"{text!r} is no time: in another time zone the calendar does not have it")
    return found
