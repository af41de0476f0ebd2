"""Pass every lab on each Docker version, one after the other, and keep what was seen in matrix.json.

Run by `make matrix`; `make test` runs the default version alone. Versions named on the command line are
run alone, and what was seen on the others stays.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.engines import bootstrap

BIN = Path(sys.executable).with_name("labkit")
RESULTS = Path(__file__).with_name("matrix.json")
LAB = "matrix"


def labkit(*argv: str) -> tuple[int, Any]:
    """Run the command with --json; returns its exit code and document."""
    done = subprocess.run(
        [BIN, *argv, "--lab", LAB, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def one(docker: str) -> dict[str, Any]:
    """Stand up a swarm of a version, run the labs on it, and take it down."""
    labkit("down")
    try:
        code, up = labkit("up", "--engine", "vm", "--docker", docker)
        if code:
            return {"docker": docker, "code": code}
        with tempfile.TemporaryDirectory() as report:
            code, run = labkit("run", "--report", report)
        # The checks' sentences name addresses of this one run; what stays true is who passed.
        labs = [
            {
                "id": lab["id"],
                "passed": sum(check["status"] == "pass" for check in lab["checks"]),
                "checks": len(lab["checks"]),
                "seconds": round(lab["seconds"], 1),
            }
            for lab in run["labs"]
        ]
        return {"docker": docker, "code": code, "up_seconds": up["seconds"], "labs": labs}
    finally:
        labkit("down")


def main() -> int:
    """Run the matrix; returns the number of versions that did not pass."""
    seen = {row["docker"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    failed = 0
    for docker in sys.argv[1:] or bootstrap.releases():
        row = one(docker)
        print(json.dumps(row), flush=True)
        failed += bool(row["code"])
        seen[docker] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {platform.freedesktop_os_release()['PRETTY_NAME']}",
            **row,
        }
        # After each: an hour's results must not be lost with the last of them.
        rows = [seen[version] for version in bootstrap.releases() if version in seen]
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
