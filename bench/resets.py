"""Resets a lab again and again, each proved by a request to a service that is made after it.

bench/resets.py [TIMES] writes bench/results/resets-<date>.json: how long each reset took, and how long
from there to the answers, which came through the routing mesh on every node.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from labkit import benchmark as bench
from labkit import swarm
from labkit.progress import Progress

LAB = "resets"


def prove(lab: swarm.Lab) -> None:
    """Make a service and ask it at every node; raises where it was there before or does not answer."""
    left = lab.manager.docker.api.services()
    if left:
        raise SystemExit(f"after the reset there still is {left[0]['Spec']['Name']}")
    lab.service("proof", publish="8080:3000")
    lab.wait_for_port(8080)


def main() -> None:
    """Reset so many times; the first failure ends it."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    swarm.down(LAB)
    resets, proofs = [], []
    try:
        swarm.up(LAB, engine="vm", progress=Progress()).lab.close()
        for at in range(times):
            started = swarm.reset(LAB, progress=Progress())
            assert started.restored
            began = time.monotonic()
            prove(started.lab)
            started.lab.close()
            resets.append(round(started.seconds, 2))
            proofs.append(round(time.monotonic() - began, 2))
            print(f"{at + 1}: {resets[-1]} s, answered {proofs[-1]} s later", flush=True)
    finally:
        swarm.down(LAB)
    now = datetime.now(UTC).date().isoformat()
    record = {"date": now, "machine": bench.machine(), "reset": resets, "answered": proofs}
    target = Path(__file__).parent / "results" / f"resets-{now}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(
        f"{times} of {times}: {statistics.median(resets)} s, answer after {statistics.median(proofs)} s"
    )


if __name__ == "__main__":
    main()
