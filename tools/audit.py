"""Asks whether an advisory is known for a dependency of the kit: audit.py requirements.lock

pip-audit comes into an environment of its own, which is removed again. It prints what it found and
exits with 0 only where every dependency in the lock has a hash, was looked up and has no advisory: with
1 where one has an advisory or lacks a hash, and with 3 where they could not be looked up, which says
nothing about them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

_PIP_AUDIT = "pip-audit==2.10.1"
_SERVICES = ("osv", "pypi")  # the first that answers is asked
_INSTALL_S, _PROBE_S, _AUDIT_S = 300, 60, 1200


class CouldNotAskError(Exception):
    """No advisory service was asked; the text says why."""


def locked(lock: str) -> dict[str, str]:
    """Return each dependency of a lock, as NAME==VERSION, with its lines: its hashes and comments."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return {entry.split()[0]: entry for entry in entries if re.match(r"[\w.-]+(\[[\w,]+\])?==", entry)}


def main() -> int:
    """Audit the lock; returns the exit code."""
    entries = locked(Path(sys.argv[1]).read_text())
    if bare := [name for name, entry in entries.items() if "--hash=sha256:" not in entry]:
        print(f"without a hash: {', '.join(bare)}")
        return 1
    print(f"{len(entries)} dependencies, each with its hashes")
    try:
        with tempfile.TemporaryDirectory(prefix="labkit-audit-") as scratch:
            return judge(_ask(Path(scratch), entries), len(entries))
    except (CouldNotAskError, subprocess.TimeoutExpired) as problem:
        print(f"NOT AUDITED: {problem}")
        return 3


def judge(report: dict[str, Any], expected: int) -> int:
    """Print what pip-audit's report says and return the exit code.

    ``expected`` are the dependencies of the lock; those for other systems are left out of a report.
    """
    found = report["dependencies"]
    skipped = [f"{one['name']}: {one['skip_reason']}" for one in found if "skip_reason" in one]
    affected = [one for one in found if one.get("vulns")]
    for one in affected:
        for advisory in one["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no release"
            print(f"{one['name']} {one['version']}: {advisory['id']}, fixed in {fixed}")
    if affected:
        return 1
    if skipped or not found:
        print("NOT AUDITED:", *(skipped or ["nothing was looked up"]), sep="\n  ")
        return 3
    print(f"{len(found)} of {expected} are for this system; none has a known advisory")
    return 0


def _ask(scratch: Path, entries: dict[str, str]) -> dict[str, Any]:
    """Return pip-audit's report on the dependencies; raises CouldNotAskError."""
    venv.create(scratch / "env", with_pip=True)
    pip = [str(scratch / "env" / "bin" / "python"), "-m", "pip", "install", "--quiet", _PIP_AUDIT]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=_INSTALL_S)
    if done.returncode != 0:
        raise CouldNotAskError(f"pip-audit cannot be installed: {_last(done.stderr)}")
    # With one dependency first, so that a machine that reaches nobody is told so in seconds.
    probe = next(entry for name, entry in entries.items() if name.startswith("idna=="))
    reasons = []
    for service in _SERVICES:
        try:
            answer = _report(scratch, service, probe, _PROBE_S)
        except CouldNotAskError as problem:
            reasons.append(f"{service}: {problem}")
            continue
        if not (unknown := [one for one in answer["dependencies"] if "skip_reason" in one]):
            print(f"asking {service}")
            return _report(scratch, service, "".join(entries.values()), _AUDIT_S)
        reasons.append(f"{service}: {unknown[0]['skip_reason']}")
    raise CouldNotAskError("no advisory service answers here\n  " + "\n  ".join(reasons))


def _report(scratch: Path, service: str, lock: str, timeout_s: float) -> dict[str, Any]:
    """Return pip-audit's report on the text of a lock; raises CouldNotAskError where it makes none."""
    file = scratch / "requirements.txt"
    file.write_text(lock)
    argv = [str(scratch / "env" / "bin" / "pip-audit"), "--requirement", str(file), "--require-hashes"]
    argv += ["--disable-pip", "--vulnerability-service", service, "--format", "json"]
    argv += ["--progress-spinner", "off", "--cache-dir", str(scratch / "cache")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CouldNotAskError(_last(done.stderr)) from None
    return report


def _last(text: str) -> str:
    """Return the last line that a program wrote, which names its error."""
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main())
