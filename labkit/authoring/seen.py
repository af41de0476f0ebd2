"""On which Docker versions the claims of the labs were seen, by the last runs of `make matrix`."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from labkit import paths


@functools.cache
def by_claim(matrix: Path = paths.MATRIX) -> dict[str, dict[str, bool]]:
    """Return for each claim, by Docker version, whether all cells that prove it passed there.

    Empty where there is no such file.
    """
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for run in json.loads(matrix.read_text()) if matrix.exists() else []:
        for lab in run["labs"]:
            for claim, passed in lab.get("claims", {}).items():
                found[claim][run["docker"]] = passed and found[claim].get(run["docker"], True)
    return dict(found)


def mark(claims: Sequence[str]) -> str:
    """Return what stands behind a paragraph that states these claims: where all of them were seen."""
    seen = [{v for v, passed in by_claim().get(claim, {}).items() if passed} for claim in claims]
    versions = sorted(set.intersection(*seen)) if seen else []
    return f" <small>(seen on Docker {', '.join(versions)})</small>" if versions else ""
