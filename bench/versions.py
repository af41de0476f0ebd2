"""Compares two checkouts of labkit side by side, in turn: --help, up restored, forty commands.

bench/versions.py OLD NEW [ROUNDS] writes bench/results/versions-<date>.json. Both checkouts must make
the same images (the same compose/), so that both restore the same snapshot. Machines are noisy: the two
take turns, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from labkit import benchmark, files

RESULTS = Path(__file__).parent / "results"
LAB = "versions"

# Runs in either checkout: the command, and what forty commands over the nodes take (median of five).
COMMAND = "import sys; from labkit.cli import main; sys.argv[0] = 'labkit'; main()"
FORTY = f"""
import statistics
import time
from labkit import swarm
lab = swarm.get({LAB!r})
nodes = list(lab.nodes.values())
for node in nodes:
    node.run(["true"])
took = []
for _ in range(5):
    began = time.monotonic()
    done = lab.run_all([(nodes[i % len(nodes)].place, ["ip", "-json", "neigh"]) for i in range(40)])
    assert all(capture.ok for capture in done)
    took.append(time.monotonic() - began)
print(statistics.median(took))
lab.close()
"""


def run(checkout: Path, code: str, *argv: str) -> tuple[float, str]:
    """Run code against a checkout; returns the process's seconds and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {argv or 'forty commands'} failed: {done.stderr[-1000:]}")
    return time.monotonic() - began, done.stdout


def restored(checkout: Path) -> float:
    """Return the seconds of a whole `labkit up` out of a snapshot."""
    argv = ("--engine", "vm", "--lab", LAB, "--json")
    took, document = run(checkout, COMMAND, "up", *argv)
    assert json.loads(document)["restored"]
    return took


def main() -> None:
    """Measure and write the record."""
    checkouts = {"old": Path(sys.argv[1]).resolve(), "new": Path(sys.argv[2]).resolve()}
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    seconds: dict[str, dict[str, list[float]]] = {
        name: {side: [] for side in checkouts}
        for name in ("labkit --help", "labkit up, restored", "forty commands")
    }
    for turn in range(rounds):
        # Who goes first changes, so that neither always finds the caches warm.
        for side in sorted(checkouts, reverse=bool(turn % 2)):
            checkout = checkouts[side]
            seconds["labkit --help"][side].append(run(checkout, COMMAND, "--help")[0])
            run(checkout, COMMAND, "down", "--lab", LAB)
            try:
                seconds["labkit up, restored"][side].append(restored(checkout))
                seconds["forty commands"][side].append(float(run(checkout, FORTY)[1]))
            finally:
                run(checkout, COMMAND, "down", "--lab", LAB)
    commit = ["git", "rev-parse", "--short", "HEAD"]
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": benchmark.machine(),
        "rounds": rounds,
        "commits": {
            side: subprocess.run(
                commit, cwd=checkout, capture_output=True, text=True, check=True
            ).stdout.strip()
            for side, checkout in checkouts.items()
        },
        "seconds": seconds,
        "medians": {
            name: {side: round(statistics.median(values), 3) for side, values in sides.items()}
            for name, sides in seconds.items()
        },
        "ratio": {
            name: round(statistics.median(sides["new"]) / statistics.median(sides["old"]), 3)
            for name, sides in seconds.items()
        },
    }
    files.write_text(RESULTS / f"versions-{record['date']}.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps({key: record[key] for key in ("commits", "medians", "ratio")}, indent=2))


if __name__ == "__main__":
    main()
