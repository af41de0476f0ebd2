"""Where evidence lies: beside the notebook, in a directory of recordings, in the kit."""

from __future__ import annotations

import gzip
import io
import os
import stat
from pathlib import Path

from labkit import paths
from labkit.errors import UsageError
from labkit.evidence import cells

SUFFIX = ".evidence.jsonl"
SIGNATURE_SUFFIX = ".evidence.sig"
_KINDS = {
    stat.S_IFLNK: "a link to another file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def target() -> Path | None:
    """Return the file that this process keeps evidence in, None where it keeps none.

    LABKIT_EVIDENCE names it; without that a notebook's kernel keeps it beside the notebook.
    """
    if named := os.environ.get("LABKIT_EVIDENCE"):
        return Path(named)
    notebook = cells.notebook()
    return beside(notebook) if notebook else None


def beside(notebook: Path) -> Path:
    """Return the evidence file that belongs to a notebook."""
    return notebook.with_suffix(SUFFIX)


def of_lab(directory: Path, lab: str) -> Path:
    """Return the evidence of a lab in a directory, packed or not; raises UsageError."""
    names = [f"{lab}{SUFFIX}", f"{lab}{SUFFIX}.gz"]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise UsageError(
        f"{directory} holds no evidence of {lab}: neither {names[0]} nor {names[1]}",
        hint=f"labkit run {lab[:2]} --evidence {directory}, on a machine that can run a swarm",
    )


def of_notebook(directory: Path) -> Path:
    """Return the evidence of this notebook's lab in a directory; raises UsageError."""
    notebook = cells.notebook()
    if notebook is None:
        raise UsageError(
            f"which recording of {directory}? This is no notebook whose name is known",
            hint=f"take your own lab's: labkit.attach(replay='{directory}/LAB{SUFFIX}.gz')",
        )
    return of_lab(directory, notebook.stem)


def of_kit() -> Path:
    """Return the recording of this notebook's lab that the kit came with; raises UsageError."""
    return of_notebook(paths.EVIDENCE)


def pack(path: Path, packed: Path) -> None:
    """Write a packed copy; the same evidence gives the same bytes."""
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def odd_kind(path: Path) -> str:
    """Say what is in a file's place, such as `a named pipe`; empty for a plain file.

    Raises OSError, FileNotFoundError where there is nothing.
    """
    return _KINDS.get(stat.S_IFMT(path.lstat().st_mode), "")


def is_plain(file: int) -> bool:
    """Whether an open file is a plain one."""
    return stat.S_ISREG(os.fstat(file).st_mode)


def open_plain(path: Path) -> io.BufferedReader:
    """Open a stranger's file to read it: links are not followed, and a named pipe does not block.

    Raises UsageError where it is anything but a plain file, OSError where it cannot be opened.
    """
    kind = odd_kind(path)
    if not kind:
        # Between the look and the opening it may have become something else.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        file = open(os.open(path, flags), "rb")  # noqa: SIM115
        kind = _KINDS.get(stat.S_IFMT(os.fstat(file.fileno()).st_mode), "")
        if not kind:
            return file
        file.close()
    raise UsageError(
        f"{path} cannot be read: it is {kind}", hint="put the file itself there, as a copy"
    )
