"""Pass every lab on each Docker version, one after the other, and keep what was seen in matrix.json.

The evidence of the default version becomes the recordings that the kit ships, labs/evidence.

Run by `make matrix`; `make test` runs the default version alone. Versions and labs that are named on
the command line are run alone, and what was seen of the others stays: matrix.py 20.10 28.5 07 08.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.engines import DEFAULT_DOCKER, versions

BIN = Path(sys.executable).with_name("labkit")
RESULTS = Path(__file__).with_name("matrix.json")
EVIDENCE = paths.REPOSITORY / "labs" / "evidence"
LAB = "matrix"
LEARNER = "learner"  # a variant with three replicas: more of them take minutes in emulation


def labkit(*argv: str | Path) -> tuple[int, Any]:
    """Run the command with --json; returns its exit code and document."""
    done = subprocess.run(
        [BIN, *argv, "--lab", LAB, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "LABKIT_LEARNER": LEARNER},
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def one(docker: str, names: list[str]) -> dict[str, Any]:
    """Stand up a swarm of a version, run the labs on it, and take it down."""
    labkit("down")
    try:
        code, up = labkit("up", "--engine", "vm", "--docker", docker)
        if code:
            return {"docker": docker, "code": code}
        with tempfile.TemporaryDirectory() as report:
            # The recordings that the kit ships are of the version that it takes by default.
            kept = EVIDENCE if docker == DEFAULT_DOCKER else report
            code, run = labkit("run", *names, "--report", report, "--evidence", kept)
        for lab in run["labs"]:
            failed = [check["message"] for check in lab["checks"] if check["status"] != "pass"]
            for told in [lab["error"]] if "error" in lab else failed:
                print(f"{docker} {lab['id']}: {told}", file=sys.stderr, flush=True)
        # The checks' sentences name addresses of this one run; what stays true is who passed.
        labs = [
            {
                "id": lab["id"],
                "date": datetime.now(UTC).date().isoformat(),
                "passed": sum(check["status"] == "pass" for check in lab["checks"]),
                "checks": len(lab["checks"]),
                "seconds": round(lab["seconds"], 1),
                "claims": lab["claims"],
            }
            for lab in run["labs"]
        ]
        return {"docker": docker, "code": code, "up_seconds": up["seconds"], "labs": labs}
    finally:
        labkit("down")


def main() -> int:
    """Run the matrix, or a part of it; returns the number of versions that did not pass."""
    seen = {row["docker"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    failed = 0
    wanted = [word for word in sys.argv[1:] if word in versions.releases()]
    names = [word for word in sys.argv[1:] if word not in wanted]
    for docker in wanted or versions.releases():
        row = one(docker, names)
        print(json.dumps(row), flush=True)
        failed += bool(row["code"])
        if names:
            kept = {lab["id"]: lab for lab in seen.get(docker, {}).get("labs", [])}
            kept |= {lab["id"]: lab for lab in row.get("labs", [])}
            row["labs"] = [kept[name] for name in sorted(kept)]
        seen[docker] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {platform.freedesktop_os_release()['PRETTY_NAME']}",
            **row,
        }
        # After each: an hour's results must not be lost with the last of them.
        rows = [seen[version] for version in versions.releases() if version in seen]
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
