"""Runs the soak, or a part of it; `make soak` runs all of it with its full counts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from labkit import paths
from tests.soak import (
    course,
    cycles,
    engine,
    fuzz,
    incidents,
    kills,
    machines,
    rest,
    results,
    server,
    side,
)
from tests.soak.home import MARK, Home

PARTS = (
    "kills",
    "engine",
    "side",
    "cycles",
    "rest",
    "faults",
    "diagnosis",
    "server",
    "class",
    "hosts",
    "fuzz",
)


def main() -> None:
    """Run what was asked for, and write the page after each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--home", type=Path, default=paths.REPOSITORY / "build" / "soak" / "home")
    parser.add_argument("--kills", type=int, default=200, help="how many commands are killed")
    parser.add_argument("--only", default="", help="only commands or cases with this in their name")
    parser.add_argument("--more", action="store_true", help="add to what was tried before")
    parser.add_argument(
        "--rounds", type=int, default=10, help="how often each thing is done side by side"
    )
    parser.add_argument("--ups", type=int, default=100, help="how often a lab goes up and down")
    parser.add_argument("--resets", type=int, default=300, help="how often a lab is reset")
    parser.add_argument("--pauses", type=int, default=200, help="how often a lab is paused")
    parser.add_argument("--hibernations", type=int, default=20, help="how often a lab is hibernated")
    parser.add_argument("--fault-rounds", type=int, default=10, help="rounds of the faults")
    parser.add_argument("--outputs", type=int, default=200_000, help="outputs for each parser")
    asked = parser.parse_args()
    home = Home(asked.home)
    home.borrow(paths.cache())
    os.environ.update({name: home.env[name] for name in ("LABKIT_HOME", "TMPDIR", MARK)})
    for part in asked.part or PARTS:
        if part == "kills":
            kills.run(home, asked.kills, asked.seed, asked.only, asked.more)
        elif part == "engine":
            engine.run(home, asked.seed, asked.only, asked.more)
        elif part == "side":
            side.run(home, asked.rounds, asked.seed, asked.more)
        elif part == "cycles":
            cycles.run(home, asked.ups, asked.resets, asked.seed)
        elif part == "rest":
            rest.run(home, asked.pauses, asked.hibernations, asked.seed, asked.more)
        elif part == "faults":
            incidents.run(home, asked.fault_rounds, asked.seed, asked.more)
        elif part == "diagnosis":
            incidents.run_diagnosis(home, asked.seed, asked.more)
        elif part == "server":
            server.run(asked.seed)
        elif part == "class":
            course.run(asked.seed)
        elif part == "hosts":
            machines.run(home, asked.seed)
        else:
            fuzz.run(asked.outputs, asked.seed, asked.more)
        results.write_page()


if __name__ == "__main__":
    main()
