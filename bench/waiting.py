"""What people wait for in the labs: the time of every cell, from the recordings that the kit ships.

bench/waiting.py [REVISION] writes docs/waiting.md: the recordings of the last commit beside those of an
earlier one. The two were made on different days, so the cells whose text is the same in both tell how
fast the machine was.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

from labkit import paths
from labkit.authoring import release
from labkit.evidence import reader
from labkit.evidence.cells import source_of

BEFORE = "af6d1c4"  # the last one before the labs were given to those who act
PAGE = paths.REPOSITORY / "docs" / "waiting.md"
INTRODUCTION = """\
# What people wait for in the labs

From `bench/waiting.py`: the recordings that the kit ships beside those of revision {revision}. All
are of Docker 26.1 on the embedded machine in pure emulation, with two processors; with KVM or a
Docker engine all of it is shorter. A cell waits from the start of its first command to the end of
its last one; what its reader does meanwhile is not in it.

The recordings were made on different days, on machines that were not equally busy. The cells whose
text is the same in both tell how much slower the machine was; the last column takes that out.
"""
FOLDER = "labs/evidence"
SHOWN_S = 8.0

Waits = dict[str, float]  # by the name of the cell's text


def waits(evidence: reader.Evidence) -> Waits:
    """Return the seconds that each cell of a recording waited."""
    runs: dict[tuple[int, str], tuple[float, float]] = {}
    for line in evidence.lines:
        if not line.row["run"]:
            continue
        cell = line.row["run"], line.row["source"]
        first, last = runs.get(cell, (line.started, line.ended))
        runs[cell] = min(first, line.started), max(last, line.ended)
    cells: Waits = defaultdict(float)
    for (_, source), (first, last) in runs.items():
        cells[source] += last - first
    return cells


def recordings(revision: str) -> dict[str, Waits]:
    """Return what each lab waited in the recordings of a revision: lab -> waits."""
    argv = ["git", "archive", "--format=tar", revision, FOLDER]
    archive = subprocess.run(argv, cwd=paths.REPOSITORY, capture_output=True, check=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                name = member.name.rpartition("/")[2].partition(".")[0]
                evidence = reader.parse(Path(member.name), gzip.decompress(content.read()))
                found[name] = waits(evidence)
    return found


def first_line(text: str) -> str:
    """Return the line that says what a cell does."""
    lines = [line.strip() for line in text.splitlines()]
    skipped = ("import ", "from ", "#", "lab, you", "lab = ", "you = ", "quick = ", "options = ", ")")
    return next((line for line in lines if line and not line.startswith(skipped)), lines[0])


def same_cells(before: Waits, now: Waits) -> tuple[float, float]:
    """Return the seconds that the cells with the same text waited, then and now."""
    same = before.keys() & now.keys()
    return sum(before[cell] for cell in same), sum(now[cell] for cell in same)


def row(lab: str, before: Waits, now: Waits) -> str:
    """Return the lab's row of the table."""
    then, today = same_cells(before, now)
    all_now = sum(now.values())
    seconds = [sum(before.values()), all_now, then, today, all_now * then / today if today else 0]
    return f"| {lab} | {' | '.join(f'{s:.0f} s' if s else '' for s in seconds)} |"


def long_cells(source: Path, now: Waits) -> list[str]:
    """Return the rows of a lab's cells that wait for long, the longest first."""
    texts = {source_of(cell.source): cell.source for cell in release.read_source(source).cells}
    known = [(seconds, texts[cell]) for cell, seconds in now.items() if cell in texts]
    return [
        f"| {seconds:.0f} s | `` {first_line(text)} `` |"
        for seconds, text in sorted(known, reverse=True)
        if seconds >= SHOWN_S
    ]


def main() -> None:
    """Write the page."""
    revision = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    before, now = recordings(revision), recordings("HEAD")
    lines = [
        INTRODUCTION.format(revision=revision),
        "| lab | before | now | same cells, before | same cells, now | now, at the speed before |",
        "|---|--:|--:|--:|--:|--:|",
        *(row(lab, before.get(lab, {}), cells) for lab, cells in sorted(now.items())),
        "",
        f"The cells that wait for {SHOWN_S:.0f} seconds or more, each by one of its lines:",
    ]
    for source in release.find_labs(paths.SOURCES):
        if long := long_cells(source, now.get(source.stem, {})):
            lines += ["", f"## {source.stem}", "", "| waits | the cell |", "|--:|---|", *long]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
