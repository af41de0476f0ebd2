"""What a learner did that asked nothing of the swarm: tries, hints, predictions; evidence too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from labkit.errors import UsageError
from labkit.evidence.format import NOTES
from labkit.evidence.reader import Line, read

if TYPE_CHECKING:
    from labkit.evidence.recorded import Recorder

_recorder: Recorder | None = None


def keep(recorder: Recorder | None) -> None:
    """Keep notes from now on with this recorder; None: nowhere, as in a replay."""
    global _recorder
    _recorder = recorder


def recorder() -> Recorder | None:
    """Return what keeps notes now; None where nothing does."""
    return _recorder


def note(kind: str, row: Mapping[str, Any]) -> None:
    """Write a line of evidence, of a kind of `format.NOTES`; nothing where no evidence is kept."""
    if _recorder is not None:
        _recorder.start(kind)(row)


def earlier() -> list[Line]:
    """Return the notes that are there, of earlier kernels too; none where no evidence is kept."""
    if _recorder is None:
        return []
    try:
        return of(read(_recorder.path).lines)
    except UsageError:
        return []


def of(lines: Iterable[Line]) -> list[Line]:
    """Return the notes among lines of evidence."""
    return [line for line in lines if line.kind in NOTES]


def counts(lines: Iterable[Line]) -> dict[str, tuple[int, int]]:
    """Return for each question how many wrong answers it had, and how many hints were asked for."""
    found: dict[str, tuple[int, int]] = {}
    for line in of(lines):
        tries, hints = found.get(line.row["question"], (0, 0))
        more = (tries + (line.kind == "try"), hints + (line.kind == "hint"))
        found[line.row["question"]] = more
    return found


def predictions(lines: Iterable[Line]) -> list[dict[str, str]]:
    """Return the predictions, the last one of each: question, name, predicted, measured."""
    names = ("question", "name", "predicted", "measured")
    found = {
        (line.row["question"], line.row["name"]): {name: line.row[name] for name in names}
        for line in of(lines)
        if line.kind == "prediction"
    }
    return list(found.values())
