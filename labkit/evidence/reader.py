"""Reads a file of evidence: its well-formed lines, and what is wrong with the others."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit.capture import Capture
from labkit.errors import UsageError
from labkit.evidence import files
from labkit.evidence.format import LINE, MAX_BYTES, START, describe, result_of_row, well_formed

_PACKED = b"\x1f\x8b"  # how a file begins that gzip has packed
_MOST_BROKEN = 1000  # places that are told: of a file that is no evidence, each line is one


@dataclass(frozen=True)
class Line:
    """One well-formed line: its place in the file, from 1, and what it holds."""

    at: int
    row: dict[str, Any]
    started: float  # seconds since the epoch

    @property
    def kind(self) -> str:
        """What was asked: lab, command or api."""
        return str(self.row["kind"])

    @property
    def ended(self) -> float:
        """When the answer was there, in seconds since the epoch."""
        return float(self.started + self.row["seconds"])

    @property
    def asked(self) -> str:
        """What was asked, as a person would say it."""
        return describe(self.kind, self.row)

    @property
    def capture(self) -> Capture | None:
        """The command and its answer; None for any other line."""
        row = self.row
        if self.kind != "command" or "error" in row:
            return None
        return Capture.of(
            row["argv"],
            result_of_row(row),
            place=row["place"],
            node=row["node"],
            docker=row["docker"],
        )


@dataclass(frozen=True)
class Evidence:
    """A file of evidence as it was read: its good lines, and what is wrong with the others."""

    path: Path
    lines: tuple[Line, ...]
    broken: tuple[tuple[int, str], ...]
    """Places in the file, and what is wrong there."""
    head: str
    """The hash that the last line states: with it the chain ends."""

    @property
    def attached(self) -> bool:
        """Whether it says which lab it is of; one that was removed while its kernel ran does not."""
        return any(line.kind == "lab" for line in self.lines)

    @property
    def learner(self) -> str:
        """Whose it says it is: what its last line says."""
        return str(self.lines[-1].row["learner"])


def read(path: Path) -> Evidence:
    """Read a file of evidence, packed or not; raises UsageError where that cannot be done.

    Lines that are no evidence are left out, with a word in `broken`; so are hashes that do not fit.
    """
    # One's own evidence may well lie behind a link.
    return parse(path, content(Path(os.path.realpath(path))))


def parse(path: Path, data: bytes) -> Evidence:
    """Read the evidence that a file holds, unpacked; raises UsageError where it is none."""
    good: list[Line] = []
    broken: list[tuple[int, str]] = []
    previous, number = START, 0
    for at, text in enumerate(_lines(data), 1):
        if len(broken) >= _MOST_BROKEN:
            broken.append((at, f"from line {at} on it was not read: too much of it is broken"))
            break
        found = LINE.fullmatch(text)
        row = well_formed(text) if found else None
        if found is None or row is None:
            broken.append((at, f"line {at} is no line of evidence"))
            continue
        stated = found[2].decode()
        line = Line(at, row, datetime.fromisoformat(row["started"]).timestamp())
        good.append(line)
        if hashlib.sha256(found[1]).hexdigest() != stated:
            broken.append((at, f"line {at} ({line.asked}) was changed after it was written"))
        if row["previous"] != previous or row["number"] != number + 1:
            broken.append(
                (at, f"before line {at} ({line.asked}) a line was taken out, put in or moved")
            )
        previous, number = stated, row["number"]
    if not good:
        raise UsageError(
            f"{path} holds no evidence", hint="run the notebook on a swarm: labkit up, then Run All"
        )
    return Evidence(path, tuple(good), tuple(broken), head=previous)


def content(path: Path) -> bytes:
    """Return what a file of evidence holds, unpacked; follows no link.

    Raises UsageError where that cannot be done.
    """
    try:
        with files.open_plain(path) as file:
            if path.suffix == ".gz" or file.peek(2)[:2] == _PACKED:
                with gzip.open(file) as packed:
                    data = packed.read(MAX_BYTES + 1)
            else:
                data = file.read(MAX_BYTES + 1)
    except UsageError:
        raise
    except (OSError, EOFError, zlib.error) as problem:
        told = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise UsageError(
            f"the evidence {path} cannot be read: {told}",
            hint="it lies beside the notebook that made it",
        ) from problem
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"the evidence {path} is larger than {MAX_BYTES // 2**20} MiB",
            hint=f"remove {path.name}, then Restart Kernel and Run All Cells leaves what one run needs",
        )
    return data


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines one by one: a list of all of them can take many times the file's memory."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = end if end >= 0 else len(data)
        yield data[start:end]
        start = end + 1
