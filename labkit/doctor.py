"""Examines this machine for `labkit doctor`: each engine, what it has, and what is missing."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from labkit import engines, paths
from labkit.engines import debian as bootstrap
from labkit.engines import docker
from labkit.engines.vm import accel
from labkit.engines.vm import image as machine
from labkit.errors import LabkitError
from labkit.grading import sandbox as cage

_SPACE = 4_000_000_000


def examine() -> dict[str, Any]:
    """Return {"engine", "why", "accel", "checks": [{"name", "ok", "detail", "remedy"}]}."""
    kind, reason = engines.choose("auto")
    checks = [_docker_engine(), _debian_packages(), _user_namespace(), _space(), _memory()]
    verdict = _accelerator()
    checks.append(_check("accelerator", verdict.accel == "kvm", verdict.reason, verdict.remedy))
    built = machine.directory().exists()
    detail = str(machine.directory()) if built else "not built yet; `labkit up` builds it, once"
    checks.append(_check("embedded machine", built, detail, "labkit vm build"))
    why_not = cage.refusal()
    remedy = "sudo apt-get install bubblewrap; see docs/troubleshooting.md"
    checks.append(_check("cage for grading", not why_not, why_not or "bubblewrap works", remedy))
    return {
        "engine": kind,
        "why": reason,
        "accel": verdict.accel if kind == "vm" else None,
        "checks": checks,
    }


def _check(name: str, ok: bool, detail: str, remedy: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "remedy": "" if ok else remedy}


def _docker_engine() -> dict[str, Any]:
    try:
        client = docker.connect()
    except LabkitError as problem:
        return _check("Docker engine", False, problem.args[0], problem.hint)
    version = client.version()["Version"]
    client.close()
    return _check("Docker engine", True, f"Docker {version} answers")


def _debian_packages() -> dict[str, Any]:
    missing = bootstrap.missing_packages()
    if missing:
        remedy = bootstrap.install_command(missing)
        return _check("Debian packages", False, f"missing: {', '.join(missing)}", remedy)
    return _check("Debian packages", True, "all that the embedded machine needs are here")


def _user_namespace() -> dict[str, Any]:
    name = "building as this user"
    if os.geteuid() == 0:
        return _check(name, True, "root builds without user namespaces")
    user = pwd.getpwuid(os.geteuid()).pw_name
    ranges = Path("/etc/subuid").read_text() if Path("/etc/subuid").exists() else ""
    if any(line.split(":")[0] in (user, str(os.geteuid())) for line in ranges.splitlines()):
        return _check(name, True, f"{user} has a range of subordinate ids")
    remedy = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    return _check(name, False, f"{user} has no range in /etc/subuid", remedy)


def _space() -> dict[str, Any]:
    directory = paths.cache()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    remedy = "make room, or set LABKIT_HOME to a directory on a larger disk"
    return _check("disk", free > _SPACE, f"{free / 1e9:.0f} GB free in {directory}", remedy)


def _memory() -> dict[str, Any]:
    import psutil

    free = psutil.virtual_memory().available
    return _check("memory", free > 2e9, f"{free / 1e9:.1f} GB available", "close other programs")


def _accelerator() -> accel.Verdict:
    if not machine.directory().exists():
        return accel.Verdict("tcg", "KVM is tried when the machine has been built", "labkit vm build")
    try:
        return accel.decide(machine.directory())
    except LabkitError as problem:  # QEMU is gone, say: the other rows tell what is missing
        return accel.Verdict("tcg", problem.args[0], problem.hint)
