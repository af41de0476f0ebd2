"""Bad input: every parser against generated and mutated outputs, by `tests/fuzz_parsers.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from labkit import paths
from tests.soak.results import Part
from tests.unit.parsers.test_every_parser import PARSERS

ROUND = 40_000  # outputs for each parser; a run that is stopped loses one round at most
_WHAT = "the parsers"
_SUMS = ("changed", "guided", "long", "tables", "refused", "failed")


def run(outputs: int, seed: int, more: bool) -> None:
    """Give each parser so many outputs, in rounds that have seeds of their own."""
    part = Part("fuzz", outputs * len(PARSERS), seed, more)
    while part.count < part.asked:
        known = part.kinds().get(_WHAT, {})
        number = known.get("rounds", 0) + 1
        found, problem = _round(min(ROUND * len(PARSERS), part.asked - part.count), seed + number)
        sums = {name: known.get(name, 0) + found.get(name, 0) for name in _SUMS}
        figures = {"rounds": number, "parsers": len(PARSERS), **sums}
        slowest = max(known.get("slowest_s", 0.0), found.get("slowest_s", 0.0))
        part.tried(
            _WHAT,
            problem,
            times=found.get("outputs", 1),
            figures={**figures, "slowest_s": slowest, "python": found.get("python", "")},
        )
        if problem:
            break  # what it found is to be mended first


def _round(outputs: int, seed: int) -> tuple[dict[str, Any], str]:
    """Run the fuzzer once; returns the JSON object of its last line, and what failed."""
    program = paths.REPOSITORY / "tests" / "fuzz_parsers.py"
    done = subprocess.run(
        [sys.executable, str(program), "--outputs", str(outputs), "--seed", str(seed)],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    found = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if done.returncode == 0:
        return found, ""
    failures = found.get("failures", [])
    said = [f"{row['parser']}: {row['problem']}: {row['text'][:200]}" for row in failures]
    return found, "; ".join(said) or f"it ended with {done.returncode}: {done.stderr[-400:]}"
