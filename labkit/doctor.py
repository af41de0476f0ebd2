"""Examines this machine for `labkit doctor`: each engine, what it has, and what is missing."""

from __future__ import annotations

from typing import Any

from labkit import engines
from labkit.engines import versions
from labkit.engines.base import Check
from labkit.errors import VersionsError
from labkit.grading import sandbox


def examine() -> dict[str, Any]:
    """Return {"engine", "why", "accel", "checks": [{"name", "ok", "detail", "remedy"}]}.

    The remedy of a check is empty where there is nothing to mend.
    """
    engine, reason = engines.choose("auto")
    checks = [check for one in engines.every() for check in one.examine()]
    checks += [_versions(), _sandbox()]
    return {
        "engine": engine.kind,
        "why": reason,
        "accel": engine.accel(),
        "checks": [{**check._asdict(), "remedy": "" if check.ok else check.remedy} for check in checks],
    }


def _versions() -> Check:
    name = "Docker versions"
    try:
        own = versions.own()
    except VersionsError as problem:
        return Check(name, False, problem.args[0], problem.hint)
    known = ", ".join(versions.shipped())
    if own:
        known += f"; of the file that {versions.VARIABLE} names: {', '.join(own)}"
    return Check(name, True, known)


def _sandbox() -> Check:
    why_not = sandbox.refusal()
    detail = why_not or "bubblewrap works"
    return Check("sandbox for grading", not why_not, detail, sandbox.remedy())
