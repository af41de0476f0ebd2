"""Bad input: every parser against generated and mutated outputs, by `tests/fuzz_parsers.py`."""

from __future__ import annotations

import json
import subprocess
import sys

from labkit import paths
from tests.soak.results import Part


def run(outputs: int, seed: int) -> None:
    """Run the fuzzer, which prints its result as one JSON object on its last line."""
    part = Part("fuzz", outputs, seed)
    program = paths.REPOSITORY / "tests" / "fuzz_parsers.py"
    done = subprocess.run(
        [sys.executable, str(program), "--outputs", str(outputs)],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    figures = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    problem = "" if done.returncode == 0 else f"it ended with {done.returncode}: {done.stderr[-400:]}"
    shown = {name: value for name, value in figures.items() if isinstance(value, int | float | str)}
    part.tried("the parsers", problem, figures=shown)
