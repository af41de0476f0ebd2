"""A file that a participant sends back, read with care: it comes from a stranger's machine.

One JSON object, of `KIND` and `FORMAT`:

    kind, format   what it is, and in which version of its form
    kit            the version of labkit that wrote it
    learner, date  whose it is, and when the check ended (ISO 8601, with a time zone)
    system, python, processors, memory_gb
    engine         kind, accel (or null) and why it was chosen
    findings       what `labkit doctor` found: name, ok, detail, remedy
    steps          in order: name, ok, seconds, message, remedy; the last one is `down`
    made_s         seconds of a `labkit up` that made the swarm; null where none did
    restored_s     the same of one that restored a saved swarm
    ready          whether every step was ok
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit import variants
from labkit.errors import UsageError
from labkit.evidence.files import open_plain
from labkit.grading.texts import visible

KIND = "labkit class check"
FORMAT = 1

_MAX_BYTES = 200_000  # a file has some 4,000
_MAX_STEPS = 20
_LONGEST_TEXT = 600  # characters
_MOST = 1e6  # of any number


class NotReturned(UsageError):
    """A file that no `labkit class check` of this kit's version can have written; says why."""


@dataclass(frozen=True)
class Returned:
    """What one file says; every text is short and has no character that cannot be seen."""

    file: str
    kit: str
    learner: str
    date: datetime
    system: str
    processors: int
    memory_gb: float
    engine: str
    """Its name, and that of the accelerator."""
    why: str
    made_s: float | None
    restored_s: float | None
    failed: str
    """The name of the first step that failed; empty where none did."""
    message: str
    remedy: str

    @property
    def ready(self) -> bool:
        """Whether every step was ok."""
        return not self.failed


def read(path: Path) -> Returned:
    """Read one file; raises NotReturned where it is not one, with the reason in a sentence."""
    try:
        with open_plain(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as problem:
        raise NotReturned(f"it cannot be read: {problem.strerror}") from problem
    except UsageError as problem:
        raise NotReturned(str(problem.args[0])) from problem
    if len(content) > _MAX_BYTES:
        raise NotReturned(f"it has more than {_MAX_BYTES} bytes, and a check's file has a few thousand")
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise NotReturned("it is no JSON, or a part of it is missing") from problem
    if not isinstance(row, dict) or row.get("kind") != KIND:
        raise NotReturned("it is no file of labkit class check")
    if row.get("format") != FORMAT or isinstance(row["format"], bool):
        kit = visible(str(row.get("kit")), 40)
        raise NotReturned(
            f"labkit {kit} wrote it in another form than this one reads ({FORMAT}): "
            "the participant needs your version of labkit, or you theirs"
        )
    return _returned(path, _Fields(row))


def _returned(path: Path, fields: _Fields) -> Returned:
    learner = fields.text("learner")
    try:
        variants.of(learner or " ")
    except UsageError as problem:
        raise NotReturned(str(problem.args[0])) from problem
    engine = fields.inner("engine")
    accel = "" if engine.row.get("accel") is None else engine.text("accel")
    steps = fields.steps()
    failed = next((step for step in steps if not step.flag("ok")), None)
    if fields.flag("ready") != (failed is None):
        raise NotReturned("it contradicts itself: `ready` is not what its steps say")
    return Returned(
        file=visible(path.name),
        kit=fields.text("kit"),
        learner=learner,
        date=fields.date(),
        system=fields.text("system"),
        processors=int(fields.number("processors")),
        memory_gb=fields.number("memory_gb"),
        engine=", ".join(filter(None, (engine.text("kind"), accel))),
        why=engine.text("why"),
        made_s=fields.seconds("made_s"),
        restored_s=fields.seconds("restored_s"),
        failed=failed.text("name") if failed else "",
        message=failed.text("message") if failed else "",
        remedy=failed.text("remedy") if failed else "",
    )


@dataclass(frozen=True)
class _Fields:
    """A JSON object whose fields are asked for by type; raises NotReturned for another one."""

    row: dict[str, Any]

    def text(self, name: str) -> str:
        value = self.row.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return visible(value, _LONGEST_TEXT)

    def flag(self, name: str) -> bool:
        value = self.row.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def number(self, name: str) -> float:
        value = self.row.get(name)
        # Python counts true as a number, and reads NaN, which is not between any two.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
            raise self._wrong(name, f"a number from 0 to {_MOST:.0f}")
        return float(value)

    def seconds(self, name: str) -> float | None:
        return None if self.row.get(name) is None else self.number(name)

    def inner(self, name: str) -> _Fields:
        value = self.row.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return _Fields(value)

    def steps(self) -> list[_Fields]:
        """Return the steps, each of which has all its fields."""
        value = self.row.get("steps")
        if not isinstance(value, list) or not 0 < len(value) <= _MAX_STEPS:
            raise self._wrong("steps", f"a list of 1 to {_MAX_STEPS} steps")
        if not all(isinstance(one, dict) for one in value):
            raise self._wrong("steps", "a list of objects")
        steps = [_Fields(one) for one in value]
        for step in steps:
            for name in ("name", "message", "remedy"):
                step.text(name)
            step.flag("ok")
            step.number("seconds")
        return steps

    def date(self) -> datetime:
        try:
            return datetime.fromisoformat(self.text("date")).astimezone()
        except (ValueError, OverflowError) as problem:
            raise self._wrong("date", "a date such as 2026-10-05T18:00:00+00:00") from problem

    def _wrong(self, name: str, wanted: str) -> NotReturned:
        return NotReturned(f"its field {name!r} is not {wanted}")
