"""Hands a saved state to every user of a machine: a cache that all may read, and its owner writes.

What lies there is found by LABKIT_SHARED (see `labkit.paths`). It holds the machine's keys, so whoever
uses it has a network of their own for their machine (see `isolation`), whose proxy asks who comes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from labkit import files
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import image, snapshots
from labkit.errors import UsageError
from labkit.progress import Progress


def share(target: Path, spec: SwarmSpec, progress: Progress) -> Path:
    """Copy machine, node image and snapshot of a spec into a shared cache; returns the snapshot there.

    What is there already is kept. Raises SnapshotRefused where no snapshot is kept here or it does not
    fit, UsageError where the cache cannot be written to.
    """
    snapshot = snapshots.fitting(spec)
    nodes = image.node_disk(spec.docker, progress).parent
    shared = target / "states" / snapshot.name
    try:
        for folder in (target, shared.parent):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        # The snapshot last: who finds it finds what it stands on.
        for source, place in (
            (image.directory(), target / image.directory().name),
            (nodes, target / nodes.name),
            (snapshot, shared),
        ):
            if not place.exists():
                with progress.stage(f"sharing {source.name}"):
                    _copy(source, place)
    except OSError as problem:
        raise UsageError(
            f"{target} cannot be written: {problem}", hint="as root, or with another directory"
        ) from problem
    return shared


def _copy(source: Path, target: Path) -> None:
    """Copy a directory so that everybody may read it; it gets its name when it is whole."""
    unfinished = target.with_name(f"unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for path in sorted(source.rglob("*")):
        copy = unfinished / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            files.copy_sparse(path, copy)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o444)
    os.replace(unfinished, target)
