"""A learner's folder: copies of the released labs, never written over a learner's work.

A small file in the folder, `.labkit-copies.json`, keeps the SHA-256 of each notebook as it was copied.
A notebook that still has that hash, and no evidence beside it, was not worked on: a newer kit may
replace it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit import files
from labkit.errors import UsageError
from labkit.evidence import files as evidence

RECORD = ".labkit-copies.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """What became of one notebook of the folder.

    `copied`: it was not there. `updated`: nobody had worked on it and the kit has a newer version.
    `current`: it is the kit's version. `kept`: somebody worked on it, so it was left alone;
    `outdated` says that the kit's version is another one than this work began with.
    """

    path: Path
    result: Literal["copied", "updated", "current", "kept"]
    outdated: bool = False


def fill(folder: Path, release: Path) -> list[Copy]:
    """Copy the notebooks of `release` into a folder, which is made where there is none.

    Raises UsageError where `folder` is no directory, cannot be written to, or is `release` itself.
    """
    if folder.resolve() == release.resolve():
        raise UsageError(
            f"{folder} holds the kit's own notebooks, which no learner should write to",
            hint="labkit lab, or another directory",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hashes = _read_record(folder / RECORD)
        copies = [
            _copy(source, folder / source.name, hashes) for source in sorted(release.glob("*.ipynb"))
        ]
        files.write_json(folder / RECORD, hashes)
    except OSError as problem:
        raise UsageError(
            f"the labs cannot be copied into {folder}: {problem.strerror}: {problem.filename}",
            hint="labkit lab DIR, with a directory that you can write to",
        ) from problem
    return copies


def _copy(source: Path, target: Path, hashes: dict[str, str]) -> Copy:
    """Bring one notebook up to date where that costs no work; renews its hash."""
    content = source.read_bytes()
    new, before = _hash(content), hashes.get(target.name)
    if not (target.exists() or target.is_symlink()):
        result: Literal["copied", "updated"] = "copied"
    else:
        now = _hash(target.read_bytes()) if target.is_file() else "no file"
        if now == new:
            hashes[target.name] = new
            return Copy(target, "current")
        if now != before or evidence.beside(target).exists():
            return Copy(target, "kept", outdated=new != before)
        result = "updated"
    with files.replacing(target) as partial:
        partial.write_bytes(content)
    hashes[target.name] = new
    log.debug("%s: %s", target, result)
    return Copy(target, result)


def _read_record(file: Path) -> dict[str, str]:
    """Return name -> hash; without a readable record every notebook counts as a learner's work."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(value) for name, value in record.items()} if isinstance(record, dict) else {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
