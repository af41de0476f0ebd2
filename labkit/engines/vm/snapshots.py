"""Keeps saved states: a swarm that runs, stopped and written down, to be started again in a second.

A state is a directory in the cache: the machine's memory (a sparse file that labs map, copy on write),
the layers over its disks, the state of its devices, and `record.json`, which tells what it was made
with and what its files hold. It gets its name last, so it is whole or not there, and it is never
written again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit import __version__, paths
from labkit.engines import debian as bootstrap
from labkit.engines.vm import accel
from labkit.engines.vm import image as machine
from labkit.engines.vm import process as vm
from labkit.errors import EngineError

# A node's certificate lives 90 days, and Swarm renews it of its own accord from the half of that on.
_OLDEST_DAYS = 40
_MOST = 6  # states that are kept; those that were used last stay
RECORD = "record.json"
FILES = (vm.RAM, vm.DEVICES, *vm.LAYERS)
CHUNK = 1 << 20


class StateRefused(EngineError):
    """A saved state that does not fit here, or is damaged; the message is the reason."""


@dataclass(frozen=True)
class Wanted:
    """What a swarm has to be; two that are equal can share one state."""

    docker: str
    nodes: int
    managers: int
    description: str  # the key of the Compose file's content

    @property
    def name(self) -> str:
        """What the names of its states begin with; the time of their making follows."""
        return f"swarm-{self.docker}-{self.nodes}-{self.managers}-{self.description[:8]}-"

    @property
    def memory_mb(self) -> int:
        """The machine's memory in MB: 170 a node were measured, and labs need room for tasks."""
        return 1536 + 512 * max(self.nodes, 3)


def home() -> Path:
    """Return the directory of all states."""
    return paths.cache() / "states"


def made_with(docker: str) -> dict[str, str]:
    """Tell all that a state has to be made with to fit this machine and this kit, by its name."""
    verdict = accel.decide(machine.directory())
    facts = {
        "kit": __version__,
        "QEMU": accel.qemu_version(),
        "accelerator and CPU": " ".join(verdict.options),
        "number of processors": str(vm.processors()),
        "embedded machine": machine.key(),
        "node image": bootstrap.node_key(docker),
    }
    if verdict.accel == "kvm":
        facts["processor"] = _processor()
    return facts


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def newest(wanted: Wanted) -> Path | None:
    """Find the state of a wanted swarm that was made last, whether it fits or not."""
    return max(home().glob(f"{wanted.name}*"), default=None)


def check(directory: Path, files: Sequence[str] = FILES) -> dict[str, Any]:
    """Return what is recorded of a state; raises StateRefused, with the reason, where it is unfit."""
    try:
        record = read(directory)
        held, created = record["made_with"], float(record["created"])
        sizes = {name: int(file["size"]) for name, file in record["files"].items()}
        docker = str(record["wanted"]["docker"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StateRefused(f"its {RECORD} cannot be read ({type(problem).__name__})") from problem
    for what, here in made_with(docker).items():
        if held.get(what) != here:
            raise StateRefused(f"another {what}: it was made with {held.get(what)!r}, here is {here!r}")
    days = (time.time() - created) / 86400
    if days > _OLDEST_DAYS:
        raise StateRefused(
            f"it is {days:.0f} days old, {_OLDEST_DAYS} at most: then Swarm changes its certificates"
        )
    if days < -1:
        raise StateRefused("it is from the future: this machine's clock is wrong, or was")
    for name in files:
        path = directory / name
        found = path.stat().st_size if path.exists() else None
        if found != sizes.get(name):
            raise StateRefused(f"its file {name} has {found} bytes, expected {sizes.get(name)}")
    return record


def read(directory: Path) -> dict[str, Any]:
    """Read a state's record."""
    record: dict[str, Any] = json.loads((directory / RECORD).read_text())
    return record


def record_of(wanted: Wanted, directory: Path, files: Sequence[str]) -> dict[str, Any]:
    """Describe what was just saved: what it is, what it was made with, what its files hold."""
    return {
        "wanted": asdict(wanted),
        "made_with": made_with(wanted.docker),
        "created": time.time(),
        "files": {name: sealed(directory / name) for name in files},
    }


def sealed(path: Path) -> dict[str, Any]:
    """Describe what a file holds: its size in bytes and its checksum."""
    return {"size": path.stat().st_size, "xxh3": digest(path)}


def checker(directory: Path, files: Sequence[str] = FILES) -> Callable[[], None]:
    """Return what reads every byte of a state and raises StateRefused where one is not as it was."""
    recorded = read(directory)["files"]

    def sound() -> None:
        for name in files:
            if digest(directory / name) != recorded[name]["xxh3"]:
                raise StateRefused(f"its file {name} is damaged: its content is not what was saved")

    return sound


def digest(path: Path) -> str:
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


def workshop(lab: str) -> Path:
    """Make an empty directory to make a lab's state in; raises BuildError where it would not fit."""
    bootstrap.demand_space(paths.cache())
    unfinished = unfinished_of(lab)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    return unfinished


def unfinished_of(lab: str) -> Path:
    """Return where a lab's state is while it is made."""
    return home() / f"unfinished-{lab}"


def leftovers() -> list[str]:
    """List the labs of which a state is being made, or was when something stopped it."""
    return [path.name.removeprefix("unfinished-") for path in home().glob("unfinished-*")]


def publish(wanted: Wanted, unfinished: Path) -> Path:
    """Give a finished state its record and its name; returns where it is then."""
    record = record_of(wanted, unfinished, FILES)
    (unfinished / RECORD).write_text(machine.to_json(record))
    place = home() / f"{wanted.name}{int(record['created']):08x}"
    os.replace(unfinished, place)
    return place


def prune(in_use: Collection[str]) -> None:
    """Remove what a newer state of the same swarm replaces, and then what was used longest ago, beyond
    the number that is kept. What labs and checkpoints stand on stays.
    """
    by_age = sorted(kept())
    replaced = [a for a, b in itertools.pairwise(by_age) if _swarm(a) == _swarm(b)]
    left = [state for state in by_age if state not in replaced]
    for old in [*replaced, *sorted(left, key=_last_used)[:-_MOST]]:
        if str(old) not in in_use:
            remove(old)


def _swarm(state: Path) -> str:
    return state.name.rpartition("-")[0]


def kept() -> list[Path]:
    """List the states that are kept."""
    return list(home().glob("swarm-*"))


def remove(directory: Path) -> None:
    """Remove a state; labs that run on it go on."""
    # Out of its name first: a removal that is interrupted must not leave half a state in use.
    gone = directory.with_name(f"unfinished-gone-{os.getpid()}")
    os.replace(directory, gone)
    shutil.rmtree(gone)


def used(directory: Path) -> None:
    """Note that a state was just used."""
    os.utime(directory / RECORD)


def _last_used(directory: Path) -> float:
    record = directory / RECORD
    return record.stat().st_mtime if record.exists() else 0.0
