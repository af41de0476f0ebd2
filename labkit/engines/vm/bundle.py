"""Hands the embedded machine on: one file with all that `labkit up` needs, for a class without network.

The file is a tar, compressed with Zstandard, of the machine, the disk with the node image, and the
saved state of one swarm, as they lie in the cache. Its first member, `labkit.json`, names them with
their sizes and checksums.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from labkit import __version__, paths
from labkit.engines import debian
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import image, snapshots
from labkit.errors import BuildError, UsageError
from labkit.files import replacing
from labkit.progress import Progress, Step

_MANIFEST = "labkit.json"
_FORMAT = 1
_NAME = re.compile(r"(machine-[0-9a-f]+|nodes-[\w.-]+|states/swarm-[\w.-]+)(/\w[\w.-]*)+")
_CHUNK = 1 << 20
_MOST_MANIFEST = 1 << 20
_LEVEL = 3  # of Zstandard: higher ones take minutes and save a tenth


def write(target: Path, spec: SwarmSpec, progress: Progress) -> dict[str, int]:
    """Write the file; returns the bytes of what is in it and of the file itself.

    Raises SnapshotRefused where the snapshot is missing or does not fit: `labkit up` makes it.
    """
    import zstandard

    if target.exists():
        raise UsageError(f"{target} is there already", hint="remove it, or name another file")
    snapshot = snapshots.fitting(spec)
    nodes = image.node_disk(spec.docker, progress).parent
    held = [
        path
        for directory in (image.directory(), nodes, snapshot)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=-1)
    # Readable by its owner only: the machine's keys are in it.
    with progress.stage(f"writing {target.name}") as step, replacing(target, mode=0o600) as partial:
        step.note("checksums")
        manifest = _manifest(spec.docker, snapshot, held)
        with (
            partial.open("wb") as out,
            compressor.stream_writer(out) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            _pack(archive, manifest, held, step)
    return {"content": sum(path.stat().st_blocks * 512 for path in held), "file": target.stat().st_size}


def _pack(
    archive: tarfile.TarFile, manifest: Mapping[str, Any], held: Sequence[Path], step: Step
) -> None:
    """Write the manifest, and then each file that it names."""
    whole = sum(file["size"] for file in manifest["files"].values())
    text = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    archive.addfile(_member(_MANIFEST, len(text)), io.BytesIO(text))
    done = 0
    for path in held:
        size = path.stat().st_size
        step.note(path.name)
        with path.open("rb") as file:
            archive.addfile(_member(_inner(path), size), file)
        done += size
        step.fraction(done / whole)


def _manifest(docker: str, snapshot: Path, held: list[Path]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "kit": __version__,
        "docker": docker,
        "machine": image.directory().name,
        "nodes": image.nodes_directory(docker).name,
        "state": _inner(snapshot),
        "created": time.time(),
        "files": {_inner(path): snapshots.describe_file(path) for path in held},
    }


def _inner(path: Path) -> str:
    cache = next(cache for cache in paths.caches() if path.is_relative_to(cache))
    return str(path.relative_to(cache))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def read(source: Path, progress: Progress) -> tuple[str, str]:
    """Put what the file holds into the cache; returns the Docker version, and "" or why the saved
    state in it does not fit this machine: then the first `labkit up` makes one, still without network.

    What is there already is kept. Raises UsageError for what is no such file, BuildError for one that
    is damaged or was made by another kit; nothing of it stays then.
    """
    import zstandard

    if not source.is_file():
        raise UsageError(f"{source} is not a file", hint="labkit vm import FILE")
    with debian.build_lock():
        debian.demand_space(paths.cache())
        unfinished = paths.cache() / f"unfinished-import-{os.getpid()}"
        unfinished.mkdir(mode=0o700)
        try:
            with progress.stage(f"reading {source.name}") as step, source.open("rb") as file:
                stream = zstandard.ZstdDecompressor().stream_reader(file)
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    manifest = _unpack(archive, unfinished, source, step)
        except (zstandard.ZstdError, tarfile.TarError, EOFError) as problem:
            raise _damaged(source, str(problem)) from problem
        else:
            for name in (manifest["machine"], manifest["nodes"], manifest["state"]):
                place = paths.cache() / name
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not place.exists():
                    os.replace(unfinished / name, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    try:
        snapshots.check(paths.cache() / manifest["state"])
    except snapshots.SnapshotRefused as refused:
        return str(manifest["docker"]), str(refused.args[0])
    return str(manifest["docker"]), ""


def _unpack(archive: tarfile.TarFile, into: Path, source: Path, step: Step) -> dict[str, Any]:
    """Write out exactly the files that the manifest names, and check each against it."""
    first = archive.next()
    if first is None or first.name != _MANIFEST or first.size > _MOST_MANIFEST:
        raise UsageError(f"{source} was not made by `labkit vm export`")
    manifest: dict[str, Any] = json.loads(_stream(archive, first).read())
    _refuse_others(manifest)
    expected: Mapping[str, Any] = manifest["files"]
    whole, done = sum(file["size"] for file in expected.values()), 0
    seen = set()
    for member in archive:
        if member.name == _MANIFEST:
            continue
        if not (member.isfile() and member.name in expected and _NAME.fullmatch(member.name)):
            raise _damaged(source, f"{member.name!r} is not expected in it")
        path = into / member.name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        step.note(path.name)
        _write_sparse(_stream(archive, member), path, member.size)
        if snapshots.describe_file(path) != expected[member.name]:
            raise _damaged(source, f"{member.name} is not what was exported")
        seen.add(member.name)
        done += member.size
        step.fraction(done / whole)
    if missing := sorted(set(expected) - seen):
        raise _damaged(source, f"{missing[0]} is missing")
    return manifest


def _refuse_others(manifest: Mapping[str, Any]) -> None:
    here = {
        "format": _FORMAT,
        "kit": __version__,
        "machine": image.directory().name,
    }
    if not _NAME.fullmatch(f"{manifest.get('state')}/{snapshots.RECORD}"):
        raise UsageError(f"the file names {manifest.get('state')!r} as its saved state")
    docker = str(manifest.get("docker"))
    here["nodes"] = image.nodes_directory(docker).name
    for what, expected in here.items():
        if manifest.get(what) != expected:
            raise BuildError(
                f"the file was made by another kit: its {what} is {manifest.get(what)!r}, "
                f"expected {expected!r}",
                hint="use the version of labkit that made it, or let it be made anew by this one",
            )


def _write_sparse(file: IO[bytes], path: Path, size: int) -> None:
    """Write a file, leaving out what is zero: a machine's memory is mostly that."""
    zeros = bytes(_CHUNK)
    with path.open("wb") as out:
        os.fchmod(out.fileno(), 0o600)
        while part := file.read(_CHUNK):
            if part == zeros:
                out.seek(len(part), os.SEEK_CUR)
            else:
                out.write(part)
        out.truncate(size)


def _stream(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file  # it is a file, or its reading was refused before
    return file


def _damaged(source: Path, why: str) -> BuildError:
    return BuildError(
        f"{source} is damaged, and nothing of it is used: {why}",
        hint="copy it again, and compare its checksum with the one where it was made",
    )
