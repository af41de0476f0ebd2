"""One line of evidence: which fields it has, of which types, and what makes it well-formed.

The package's docstring lists the fields. Their names on disk never change: recordings outlive versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from labkit.transport.base import CommandResult

MAX_TEXT = 2_000_000  # characters of one output, request or answer
MAX_BYTES = 64 * 1024 * 1024  # of a file, unpacked
TEXTS = ("stdout", "stderr", "body", "response")
LINE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}', re.DOTALL)
START = "0" * 64  # what stands for the hash before the first line

_LATEST = 1e11  # seconds since the epoch: no date beyond it can be told
_Types = dict[str, type | tuple[type, ...]]
_NUMBER = (int, float)
_COMMON: _Types = {
    "number": int,
    "kind": str,
    "session": str,
    "run": int,
    "cell": str,
    "source": str,
    "learner": str,
    "docker": str,
    "started": str,
    "seconds": _NUMBER,
    "previous": str,
}
_ASKED: dict[str, _Types] = {
    "lab": {"lab": str, "engine": str, "accel": (str, type(None)), "labkit": str, "nodes": list},
    "command": {
        "node": str,
        "place": str,
        "netns": (str, type(None)),
        "pid": (int, type(None)),
        "argv": list,
        "ready": bool,
    },
    "api": {"node": str, "method": str, "path": str, "body": (str, type(None))},
    "try": {"question": str, "name": str, "answer": str},
    "hint": {"question": str, "step": int},
    "prediction": {"question": str, "name": str, "predicted": str, "measured": str},
}
NOTES = ("try", "hint", "prediction")  # the kinds that ask nothing of the swarm
_ANSWERED: dict[str, _Types] = {
    "lab": {},
    "command": {
        "code": int,
        "stdout": str,
        "stderr": str,
        "began": _NUMBER,
        "ran": _NUMBER,
        "timed_out": bool,
    },
    "api": {"status": int, "type": str, "response": str, "encoding": str},
    **{kind: {} for kind in NOTES},
}
_NODE: _Types = {"name": str, "address": str, "container": str, "docker": str}


def row_of_result(result: CommandResult) -> dict[str, Any]:
    """Return a command's result as the fields that evidence has for it."""
    return {
        "code": result.code,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "began": result.started,
        "ran": result.seconds,
        "timed_out": result.timed_out,
    }


def result_of_row(row: Mapping[str, Any]) -> CommandResult:
    """Return the result that `row_of_result` wrote down."""
    return CommandResult(
        code=row["code"],
        stdout=row["stdout"],
        stderr=row["stderr"],
        started=row["began"],
        seconds=row["ran"],
        timed_out=row["timed_out"],
    )


def well_formed(text: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, None for one that is not well-formed. None of it can be trusted."""
    try:
        row = json.loads(text)
        if not isinstance(row, dict) or not _has(row, _COMMON):
            return None
        if row["kind"] not in _ASKED or not _has(row, _ASKED[row["kind"]]):
            return None
        if "error" in row:
            if not isinstance(row["error"], str):
                return None
        elif not _has(row, _ANSWERED[row["kind"]]):
            return None
        words = row.get("argv", [])
        nodes = row.get("nodes", [])
        if not all(isinstance(word, str) for word in words):
            return None
        if not all(isinstance(node, dict) and _has(node, _NODE) for node in nodes):
            return None
        if not all(isinstance(node.get("machine", ""), str) for node in nodes):
            return None
        if row["kind"] == "lab" and not nodes:
            return None
        if not isinstance(row.get("cut", {}), dict):
            return None
        moment = datetime.fromisoformat(row["started"])
        times = [moment.timestamp(), row["seconds"], row.get("began", 0.0), row.get("ran", 0.0)]
        plausible = moment.tzinfo and all(0 <= value < _LATEST for value in times)
        return row if plausible else None
    except (TypeError, ValueError, OverflowError, RecursionError, MemoryError):
        return None


def _has(row: Mapping[str, Any], types: _Types) -> bool:
    return all(name in row and isinstance(row[name], kind) for name, kind in types.items())


def describe(kind: str, row: Mapping[str, Any]) -> str:
    """Say in a few words what was asked."""
    if kind == "command":
        words = " ".join(row["argv"])
        return f"`{words if len(words) <= 80 else words[:77] + '...'}` on {row['place']}"
    if kind == "api":
        return f"{row['method']} {str(row['path'])[:80]} of the engine on {row['node']}"
    if kind in NOTES:
        return f"{kind} of {str(row['question'])[:80]}"
    return "attach()"
