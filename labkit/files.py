"""Writes files so that whoever reads, also after a crash, sees the old one or the new one whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(target: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes the target's name when the body has ended.

    A body that raises leaves the target as it was, and nothing beside it. `mode` is what the file's
    rights are made of, less the process's umask.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode))
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(target: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a text file (UTF-8) whole or not at all; makes the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, mode=mode) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any, *, mode: int = 0o666) -> None:
    """Write a JSON file, indented and in the order of its keys' names, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode)
