"""Compares two checkouts of labkit at marking, in turn: seconds per solved submission of each lab.

bench/marking.py OLD NEW [ROUNDS [LAB…]] writes bench/results/marking-<date>.json. Each turn marks one
submission alone, so that the two do not wait for each other; what counts is the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from labkit import benchmark, files, paths
from labkit.authoring import release
from labkit.evidence import files as evidence
from labkit.evidence import reader

RESULTS = Path(__file__).parent / "results"
COMMAND = "import sys; from labkit.cli import main; sys.argv[0] = 'labkit'; main()"


def hand_in(lab: Path, directory: Path) -> None:
    """Write a solved submission with the evidence that the kit came with."""
    recording = evidence.of_lab(paths.EVIDENCE, lab.stem)
    folder = directory / reader.read(recording).learner
    folder.mkdir(parents=True)
    notebook = release.nbgrader_source(lab)
    nbformat.write(notebook, folder / f"{lab.stem}.ipynb")  # type: ignore[no-untyped-call]
    shutil.copy(recording, folder)


def mark(checkout: Path, handed_in: Path) -> tuple[float, float]:
    """Mark a folder; returns the seconds of its submission, and its points."""
    with tempfile.TemporaryDirectory() as directory:
        argv = ["grade", str(handed_in), "--out", f"{directory}/grades.csv", "--json"]
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *argv],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            check=True,
        )
    (row,) = json.loads(done.stdout)
    return row["seconds"], row["points"]


def main() -> None:
    """Measure and write the record."""
    checkouts = {"old": Path(sys.argv[1]).resolve(), "new": Path(sys.argv[2]).resolve()}
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    labs = release.find_labs(paths.SOURCES, sys.argv[4:])
    seconds: dict[str, dict[str, list[float]]] = {
        lab.stem: {side: [] for side in checkouts} for lab in labs
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        for lab in labs:
            hand_in(lab, Path(directory) / lab.stem)
        for turn in range(rounds):
            for lab in labs:
                points = set()
                for side in sorted(checkouts, reverse=bool(turn % 2)):
                    took, given = mark(checkouts[side], Path(directory) / lab.stem)
                    seconds[lab.stem][side].append(took)
                    points.add(given)
                if len(points) > 1:
                    raise SystemExit(f"{lab.stem}: the two give different points: {sorted(points)}")
    medians = {
        lab: {side: round(statistics.median(values), 2) for side, values in sides.items()}
        for lab, sides in seconds.items()
    }
    whole = {side: round(sum(sides[side] for sides in medians.values()), 1) for side in checkouts}
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": benchmark.machine(),
        "rounds": rounds,
        "seconds per submission": medians,
        "all labs": whole,
        "ratio": round(whole["new"] / whole["old"], 2),
        "measured in": round(time.monotonic() - began),
    }
    files.write_text(RESULTS / f"marking-{record['date']}.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
