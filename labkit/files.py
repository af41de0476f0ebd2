"""Writes files so that whoever reads, also after a crash, sees the old one or the new one whole.

What is being written lies beside its target as `.NAME.….partial`, and its writer holds a lock on it. A
lock goes with its process, also with one that is killed: an unlocked one is left over, and the next
writer of the same target removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ENDING = ".partial"
_SCRATCH = "labkit-scratch-"
_YOUNG_SECONDS = 2.0


@contextmanager
def replacing(target: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes the target's name when the body has ended.

    A body that raises leaves the target as it was, and nothing beside it. `mode` is what the file's
    rights are made of, less the process's umask.
    """
    remove_leftovers(target.parent, target.name)
    partial, lock = _begun(target, mode)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


def _begun(target: Path, mode: int) -> tuple[Path, int]:
    """Make the file that is written to; returns it and the descriptor that holds its lock."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_ENDING}")
        lock = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return partial, lock
        os.close(lock)  # another writer took it for a leftover before it was locked


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed writers of a file, or of every file, have left in a folder."""
    beginning = f".{name}." if name else "."
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        left = [e.path for e in entries if e.name.startswith(beginning) and e.name.endswith(_ENDING)]
        for path in left:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory for temporary files, which is gone with the body, and open to its owner only.

    It is locked like what `replacing` writes: one of a process that was killed is removed by the next
    one to make a directory here.
    """
    remove_scratch()
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_scratch() -> None:
    """Remove the directories for temporary files of this user's processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(lock)
                # One that was made a moment ago may not have its lock yet.
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _YOUNG_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a large file with its holes; a file system that can share the blocks of both does.

    Raises OSError.
    """
    argv = ["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


def write_text(target: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a text file (UTF-8) whole or not at all; makes the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, mode=mode) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any, *, mode: int = 0o666) -> None:
    """Write a JSON file, indented and in the order of its keys' names, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode)
