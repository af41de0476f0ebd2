"""`make audit`: what could not be looked up never passes."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import paths

TOOL = paths.REPOSITORY / "tools" / "audit.py"
LOCK = paths.REPOSITORY / "requirements.lock"
audit = runpy.run_path(str(TOOL))

CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
SKIPPED = {"name": "idna", "skip_reason": "Dependency not found and could not be audited"}
KNOWN = {"id": "PYSEC-2024-60", "fix_versions": ["3.7"]}
AFFECTED = {"name": "idna", "version": "3.6", "vulns": [KNOWN]}


def test_every_dependency_in_the_lock_has_its_hashes() -> None:
    entries = audit["locked"](LOCK.read_text())
    assert len(entries) > 100
    assert len(entries) == sum("==" in line and not line.startswith("#") for line in _firsts())
    assert all("--hash=sha256:" in entry for entry in entries.values())


def _firsts() -> list[str]:
    return [line for line in LOCK.read_text().splitlines() if line and not line.startswith(" ")]


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        ([CLEAN], 0, "1 of 2 are for this system; none has a known advisory"),
        ([CLEAN, SKIPPED], 3, "NOT AUDITED"),
        ([], 3, "NOT AUDITED"),
        ([AFFECTED, SKIPPED], 1, "idna 3.6: PYSEC-2024-60, fixed in 3.7"),
    ],
)
def test_the_outcome(
    found: list[dict[str, Any]], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit["judge"]({"dependencies": found}, 2) == code
    assert says in capsys.readouterr().out


def test_a_lock_without_a_hash_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("idna==3.20\n    # via requests\n")
    done = subprocess.run([sys.executable, str(TOOL), str(lock)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "without a hash: idna==3.20\n")
