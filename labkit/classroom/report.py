"""The report on a class before it begins: who is ready, who is not and why, whose file is missing."""

from __future__ import annotations

import stat
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import __version__
from labkit.classroom import returned
from labkit.classroom.returned import NotReturned, Returned
from labkit.errors import UsageError
from labkit.grading import texts
from labkit.grading.texts import visible

_MAX_FILES = 5000
COLUMNS = (
    *("learner", "status", "step", "message", "remedy", "made_s", "restored_s"),
    *("kit", "engine", "system", "processors", "memory_gb", "date", "file"),
)


@dataclass(frozen=True)
class Times:
    """How long one kind of `labkit up` took in the class, in seconds."""

    machines: int
    median: float
    worst: float
    slowest: str
    """The learner whose machine took the longest."""


@dataclass(frozen=True)
class Report:
    """What the files of a class say."""

    rows: list[dict[str, Any]]
    """One for each learner, with the fields of `COLUMNS`; status is ready, not ready or missing."""
    problems: list[dict[str, str]]
    """Files that could not be read, or do not count: file, sentence."""
    made: Times | None
    restored: Times | None
    """None where no file has such a time."""
    other_kits: dict[str, list[str]] = field(default_factory=dict)
    """The learners with another version of labkit than this one, by that version."""
    kit: str = __version__

    def count(self, status: str) -> int:
        """Return how many learners have a status."""
        return sum(row["status"] == status for row in self.rows)


def report(paths: Sequence[Path], learners: Iterable[str] = ()) -> Report:
    """Sum up the files at some paths; of a folder, all that end in `.json`, in folders of it too.

    ``learners`` are those of the roster: who has no file is missing. Raises UsageError where a path
    cannot be read or no file is there; a file that is not a check's is a problem in the report.
    """
    found, problems = _read(_files(paths))
    latest, doubles = _latest(found)
    known = sorted(set(learners))
    if known:
        doubles += [
            _problem(one.file, f"{one.learner} is not on the roster")
            for one in latest.values()
            if one.learner not in known
        ]
    rows = [_row(one) for one in latest.values()]
    rows += [_missing(name) for name in known if name not in latest]
    others: dict[str, list[str]] = {}
    for one in sorted(latest.values(), key=lambda one: one.learner):
        if one.kit != __version__:
            others.setdefault(one.kit, []).append(one.learner)
    order = ("not ready", "missing", "ready")
    return Report(
        rows=sorted(rows, key=lambda row: (order.index(row["status"]), row["learner"])),
        problems=problems + doubles,
        made=_times((one.made_s, one.learner) for one in latest.values()),
        restored=_times((one.restored_s, one.learner) for one in latest.values()),
        other_kits=others,
    )


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as a table; every field is quoted, and none can begin a formula.

    Raises UsageError where the file cannot be written.
    """
    try:
        texts.write_csv(path, COLUMNS, rows)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be written: {problem.strerror}", hint="--csv FILE, in a folder of your own"
        ) from problem


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return the files to read, each once; raises UsageError."""
    found: dict[Path, None] = {}
    for path in paths:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
            found |= dict.fromkeys(_in_folder(path) if is_folder else [path])
        except OSError as problem:
            where = problem.filename or path
            raise UsageError(
                f"{visible(str(where))} cannot be read: {problem.strerror}",
                hint="labkit class report FILE_OR_FOLDER, with what the class has sent",
            ) from problem
    if len(found) > _MAX_FILES:
        raise UsageError(
            f"{len(found)} files are there, and {_MAX_FILES} at most are read",
            hint="put the files of a class into a folder of their own",
        )
    if not found:
        raise UsageError(
            f"{visible(', '.join(map(str, paths)))} holds no file that ends in .json",
            hint="each participant sends class-check-ID.json, which labkit class check writes",
        )
    return list(found)


def _in_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder's files and those in its folders, by name; links are not followed.

    Raises OSError.
    """
    waiting = [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir(), reverse=True):
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
            elif path.name.endswith(".json") and not path.name.startswith("."):
                yield path


def _read(paths: Iterable[Path]) -> tuple[list[Returned], list[dict[str, str]]]:
    found, problems = [], []
    for path in paths:
        try:
            found.append(returned.read(path))
        except NotReturned as problem:
            problems.append(_problem(visible(path.name), visible(str(problem.args[0]), 400)))
    return found, problems


def _latest(found: Iterable[Returned]) -> tuple[dict[str, Returned], list[dict[str, str]]]:
    """Return each learner's newest file, and a sentence for each one that is older."""
    latest: dict[str, Returned] = {}
    older = []
    for one in sorted(found, key=lambda one: one.date):
        if before := latest.get(one.learner):
            told = f"{one.learner} has sent a newer one, which counts: {one.file}"
            older.append(_problem(before.file, told))
        latest[one.learner] = one
    return latest, older


def _times(measured: Iterable[tuple[float | None, str]]) -> Times | None:
    known = [(seconds, learner) for seconds, learner in measured if seconds is not None]
    if not known:
        return None
    worst, slowest = max(known)
    return Times(len(known), statistics.median(seconds for seconds, _ in known), worst, slowest)


def _row(one: Returned) -> dict[str, Any]:
    return {
        "learner": one.learner,
        "status": "ready" if one.ready else "not ready",
        "step": one.failed,
        "date": one.date.isoformat(timespec="minutes"),
        **{
            name: getattr(one, name)
            for name in COLUMNS
            if name not in ("learner", "status", "step", "date")
        },
    }


def _missing(learner: str) -> dict[str, Any]:
    remedy = "ask for the file: labkit class check"
    return {**dict.fromkeys(COLUMNS), "learner": learner, "status": "missing", "remedy": remedy}


def _problem(file: str, sentence: str) -> dict[str, str]:
    return {"file": file, "sentence": sentence}
