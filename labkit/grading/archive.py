"""Take the submissions of a class out of a ZIP file, as a learning platform gives it.

The file holds strangers' names and strangers' bytes: only notebooks, evidence and signatures are taken
out, each by a path that stays inside, and no more than there is room for.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from labkit.errors import UsageError
from labkit.evidence import files
from labkit.grading import submissions
from labkit.grading.texts import visible

MAX_FILES = 20_000
MAX_FILE_BYTES = 512 * 1024 * 1024  # unpacked
MAX_TOTAL_BYTES = 4 * 1024**3  # unpacked
_UTF_8 = 0x800  # the flag of an entry whose name is UTF-8
_CHUNK = 1024 * 1024
_HINT = "unpack it yourself, look what it holds, then labkit grade DIR"


def unpack(archive: Path, directory: Path) -> list[str]:
    """Write the submissions of a ZIP file into a folder; returns a sentence for each odd entry.

    A single folder around all others is left out. Raises UsageError where it is no ZIP file, has more
    files or bytes than `MAX_FILES`, `MAX_FILE_BYTES` and `MAX_TOTAL_BYTES`, or is encrypted.
    """
    notes: list[str] = []
    try:
        with files.open_plain(archive) as file, zipfile.ZipFile(file) as opened:
            if len(opened.infolist()) > MAX_FILES:
                raise UsageError(f"{archive} has more than {MAX_FILES} files", hint=_HINT)
            entries = list(_wanted(opened.infolist(), notes))
            around = _around([path for _, path in entries])
            left = MAX_TOTAL_BYTES
            for entry, path in entries:
                target = directory.joinpath(*path.parts[around:])
                if target.exists():
                    notes.append(f"{visible(str(path))} is in it twice; the first one was taken")
                    continue
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    notes.append(f"{visible(str(path))} has a file for a folder and was not taken")
                    continue
                left -= _write(opened, entry, target, min(MAX_FILE_BYTES, left))
    except UsageError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as problem:
        raise UsageError(f"{archive} cannot be unpacked: {problem}", hint=_HINT) from problem
    except (RuntimeError, NotImplementedError) as problem:  # a password, a way of packing
        raise UsageError(f"{archive} cannot be unpacked: {problem}", hint=_HINT) from problem
    return notes


def _wanted(
    entries: Iterable[zipfile.ZipInfo], notes: list[str]
) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Yield the entries that are taken, with their paths; notes get a sentence for odd ones."""
    for entry in entries:
        name = _name(entry)
        path = PurePosixPath(name.replace("\\", "/"))
        if entry.is_dir() or "__MACOSX" in path.parts:
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            notes.append(f"{visible(name)} is no plain file and was not taken")
        elif (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or ":" in path.parts[0]
            or "\0" in name
        ):
            notes.append(f"{visible(name)} leads out of the folder and was not taken")
        elif any(len(part.encode(errors="replace")) > 200 for part in path.parts):
            notes.append(f"{visible(name)} has too long a name and was not taken")
        elif submissions.is_taken(path.name):
            yield entry, path
        else:
            notes.append(f"{visible(name)} is no notebook and no evidence, and was not taken")


def _name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name; many programs write UTF-8 without saying so."""
    name = entry.orig_filename
    if entry.flag_bits & _UTF_8:
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


def _around(paths: Sequence[PurePosixPath]) -> int:
    """Return how many folders stand around all learners' folders: 0 or 1."""
    tops = {path.parts[0] for path in paths}
    is_around = len(tops) == 1 and all(len(path.parts) > 2 for path in paths)
    return int(is_around and tops != {"submitted"})


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, most: int) -> int:
    """Write an entry's bytes into a new file and return how many; raises UsageError beyond `most`."""
    size = 0
    with opened.open(entry) as packed, target.open("xb") as file:
        while data := packed.read(_CHUNK):
            size += len(data)
            if size > most:
                limits = (
                    f"{MAX_FILE_BYTES // 2**20} MiB a file and {MAX_TOTAL_BYTES // 2**30} GiB in all"
                )
                raise UsageError(
                    f"{visible(entry.filename)} in the ZIP file is too large unpacked: {limits} can be",
                    hint=_HINT,
                )
            file.write(data)
    return size
