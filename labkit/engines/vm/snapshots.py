"""Keeps snapshots: a swarm that runs, stopped and written down, to be started again in a second.

A snapshot is a directory in the cache: the machine's memory (a sparse file that labs map, copy on
write), the layers over its disks, the state of its devices, and `record.json`, which tells what it was
made with and what its files hold. It gets its name last, so it is whole or not there, and it is never
written again.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit import __version__, files, paths
from labkit.engines import debian
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import accel, image, process
from labkit.errors import EngineError

log = logging.getLogger(__name__)

# A node's certificate lives 90 days, and Swarm renews it of its own accord from the half of that on.
_OLDEST_DAYS = 40
_MOST = 6  # snapshots that are kept; those that were used last stay
RECORD = "record.json"
FILES = (process.RAM, process.DEVICES, *process.LAYERS)
CHUNK = 1 << 20


class SnapshotRefused(EngineError):
    """A snapshot that does not fit here, or is damaged; the message is the reason."""


def memory_mb(spec: SwarmSpec) -> int:
    """Return a machine's memory in MB: 170 per node were measured, and labs need room for tasks."""
    return 1536 + 512 * max(spec.nodes, 3)


def home() -> Path:
    """Return the directory of all snapshots."""
    return paths.cache() / "states"


def kept() -> list[Path]:
    """List the snapshots that are kept."""
    return list(home().glob("swarm-*"))


def newest(spec: SwarmSpec) -> Path | None:
    """Find the snapshot of a spec that was made last, own or shared, whether it fits or not."""
    states = [cache / "states" for cache in paths.caches()]
    found = [path for place in states for path in place.glob(f"{_prefix(spec)}*")]
    return max(found, key=lambda path: path.name, default=None)


def fitting(spec: SwarmSpec) -> Path:
    """Return the newest snapshot of a spec; raises SnapshotRefused where none is here or fits."""
    snapshot = newest(spec)
    if not snapshot:
        raise SnapshotRefused(
            f"no saved state of {spec.nodes} nodes with Docker {spec.docker} is here",
            hint=f"labkit up --engine vm --docker {spec.docker} --nodes {spec.nodes} makes it",
        )
    check(snapshot)
    return snapshot


def _prefix(spec: SwarmSpec) -> str:
    """Return what the names of a spec's snapshots begin with; the time of their making follows."""
    return f"swarm-{spec.docker}-{spec.nodes}-{spec.managers}-{spec.description[:8]}-"


# --- does it fit? ---------------------------------------------------------------------------------


def made_with(docker: str) -> dict[str, str]:
    """Return what a snapshot has to be made with to fit this machine and this kit: name -> value."""
    verdict = accel.decide(image.directory())
    facts = {
        "kit": __version__,
        "QEMU": accel.qemu_version(),
        "accelerator and CPU": " ".join(verdict.options),
        "number of processors": str(process.processors()),
        "embedded machine": image.key(),
        "node image": debian.node_key(docker),
    }
    if verdict.accel == "kvm":
        facts["processor"] = _processor()
    return facts


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def check(directory: Path, names: Sequence[str] = FILES) -> dict[str, Any]:
    """Return the record of a snapshot or checkpoint; raises SnapshotRefused where it is unfit."""
    try:
        record = read(directory)
        held, created = record["made_with"], float(record["created"])
        sizes = {name: int(file["size"]) for name, file in record["files"].items()}
        docker = spec_in(record).docker
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SnapshotRefused(f"its {RECORD} cannot be read ({type(problem).__name__})") from problem
    for what, here in made_with(docker).items():
        if held.get(what) != here:
            raise SnapshotRefused(
                f"another {what}: it was made with {held.get(what)!r}, here is {here!r}"
            )
    days = (time.time() - created) / 86400
    if days > _OLDEST_DAYS:
        raise SnapshotRefused(
            f"it is {days:.0f} days old, {_OLDEST_DAYS} at most: then Swarm changes its certificates"
        )
    if days < -1:
        raise SnapshotRefused("it is from the future: this machine's clock is wrong, or was")
    for name in names:
        path = directory / name
        found = path.stat().st_size if path.exists() else None
        if found != sizes.get(name):
            raise SnapshotRefused(f"its file {name} has {found} bytes, expected {sizes.get(name)}")
    return record


def read(directory: Path) -> dict[str, Any]:
    """Read a snapshot's record; raises OSError and ValueError."""
    record: dict[str, Any] = json.loads((directory / RECORD).read_text())
    return record


def spec_in(record: dict[str, Any]) -> SwarmSpec:
    """Return what the swarm of a record was asked to be; raises KeyError and TypeError."""
    return SwarmSpec(**record["wanted"])


# --- what its files hold --------------------------------------------------------------------------


def record_of(spec: SwarmSpec, directory: Path, names: Sequence[str]) -> dict[str, Any]:
    """Describe what was just saved: its spec, what it was made with, what its files hold."""
    return {
        "wanted": asdict(spec),
        "made_with": made_with(spec.docker),
        "created": time.time(),
        "files": {name: describe_file(directory / name) for name in names},
    }


def describe_file(path: Path) -> dict[str, Any]:
    """Describe what a file holds: its size in bytes and its checksum."""
    return {"size": path.stat().st_size, "xxh3": checksum(path)}


def verifier(directory: Path, names: Sequence[str] = FILES) -> Callable[[], None]:
    """Return a function that checksums every file, and raises SnapshotRefused where one has changed."""
    recorded = read(directory)["files"]

    def verify() -> None:
        for name in names:
            if checksum(directory / name) != recorded[name]["xxh3"]:
                raise SnapshotRefused(f"its file {name} is damaged: its content is not what was saved")

    return verify


def checksum(path: Path) -> str:
    """Return a checksum (XXH3) of a file's content in which holes and zeros are the same.

    It guards against damage, not against malice: who can write here can write the record too.
    """
    import xxhash

    zeros = xxhash.xxh3_128_digest(bytes(CHUNK))
    total = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        total.update(size.to_bytes(8, "little"))
        buffer = memoryview(bytearray(CHUNK))
        for offset in data_chunks(file.fileno(), size):
            file.seek(offset)
            part = xxhash.xxh3_128_digest(buffer[: file.readinto(buffer)])
            if part != zeros:
                total.update(offset.to_bytes(8, "little") + part)
    return total.hexdigest()


def data_chunks(file: int, size: int) -> Iterator[int]:
    """List the offsets of a sparse file's chunks that hold anything."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(file, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        position = max(position, begin - begin % CHUNK)
        while position < end:
            yield position
            position += CHUNK


# --- how it comes and goes ------------------------------------------------------------------------


def new_directory(lab: str) -> Path:
    """Make an empty directory for a lab's next snapshot; raises BuildError where it would not fit."""
    home().mkdir(parents=True, exist_ok=True, mode=0o700)  # the first of a user who had a shared one
    debian.demand_space(home())
    directory = unfinished(lab)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    return directory


def unfinished(lab: str) -> Path:
    """Return where a lab's snapshot is while it is made."""
    return home() / f"unfinished-{lab}"


def leftovers() -> list[str]:
    """List the labs of which a snapshot is being made, or was when something stopped it."""
    return [path.name.removeprefix("unfinished-") for path in home().glob("unfinished-*")]


def publish(spec: SwarmSpec, directory: Path) -> Path:
    """Give a finished snapshot its record and its name; returns where it is then."""
    record = record_of(spec, directory, FILES)
    files.write_json(directory / RECORD, record)
    place = home() / f"{_prefix(spec)}{int(record['created']):08x}"
    os.replace(directory, place)
    return place


def prune(in_use: Collection[str]) -> None:
    """Remove what a newer snapshot of the same spec replaces, then those that were used longest ago,
    beyond the number that is kept. What labs and checkpoints stand on stays.
    """
    by_age = sorted(kept())
    replaced = [a for a, b in itertools.pairwise(by_age) if _swarm(a) == _swarm(b)]
    left = [snapshot for snapshot in by_age if snapshot not in replaced]
    for old in [*replaced, *sorted(left, key=_last_used)[:-_MOST]]:
        if str(old) not in in_use:
            log.info("the snapshot %s is removed", old.name)
            remove(old)


def _swarm(snapshot: Path) -> str:
    return snapshot.name.rpartition("-")[0]


def remove(directory: Path) -> None:
    """Remove a snapshot; labs that run on it go on."""
    # Out of its name first: a removal that is interrupted must not leave half a snapshot in use.
    gone = directory.with_name(f"unfinished-gone-{os.getpid()}")
    os.replace(directory, gone)
    shutil.rmtree(gone)


def mark_used(directory: Path) -> None:
    """Note that a snapshot was just used; one that is shared is not this user's to write to."""
    if directory.parent == home():
        os.utime(directory / RECORD)


def _last_used(directory: Path) -> float:
    record = directory / RECORD
    return record.stat().st_mtime if record.exists() else 0.0
