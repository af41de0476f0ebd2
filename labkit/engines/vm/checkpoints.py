"""Keeps moments of a running lab that its learner wants to come back to.

A moment is the whole embedded machine, its memory and the layers over its disks. It lies in the cache
and outlives the lab; it needs the saved state that the lab came from, whose disks are below its layers.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from labkit import paths
from labkit.engines import debian as bootstrap
from labkit.engines.vm import image as machine
from labkit.engines.vm import process as vm
from labkit.engines.vm import snapshots as states
from labkit.errors import EngineError, UnknownNameError, UsageError

MOST = 5
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
_FILES = (vm.WHOLE, *vm.LAYERS)


@dataclass(frozen=True)
class Moment:
    """One moment: when it was kept, and how many bytes of disk it takes."""

    name: str
    created: float
    size: int


def kept(lab: str) -> list[Moment]:
    """List the moments of a lab, oldest first."""
    moments = []
    for directory in _home(lab).glob("[!.]*"):
        record = states.read(directory)
        size = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
        moments.append(Moment(directory.name, record["created"], size))
    return sorted(moments, key=lambda moment: moment.created)


def save(lab: str, name: str) -> None:
    """Keep this moment of a running lab; raises UsageError, and EngineError where it has no machine."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a checkpoint's name: small letters, digits, hyphens, 31 at most",
            hint="labkit checkpoint save before-the-fault",
        )
    names = [moment.name for moment in kept(lab)]
    if name in names:
        raise UsageError(
            f"lab {lab!r} has a checkpoint {name!r} already",
            hint=f"labkit checkpoint remove {name}, or take another name",
        )
    if len(names) >= MOST:
        raise UsageError(
            f"lab {lab!r} has {len(names)} checkpoints, {MOST} at most: {', '.join(names)}",
            hint="labkit checkpoint remove NAME",
        )
    guest = vm.find(lab)
    if guest is None:
        raise EngineError(
            f"lab {lab!r} does not run on the embedded machine, and nothing else can be kept",
            hint="labkit up --engine vm",
        )
    bootstrap.demand_space(paths.cache())
    unfinished = _home(lab) / f".unfinished-{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    try:
        vm.freeze(guest, unfinished)
        guest.set_clock()
        wanted = states.Wanted(**states.read(Path(guest.state))["wanted"])
        record = states.record_of(wanted, unfinished, _FILES)
        (unfinished / states.RECORD).write_text(machine.to_json({**record, "state": guest.state}))
        unfinished.rename(_home(lab) / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def restore(lab: str, name: str) -> vm.Machine:
    """End the lab's machine, if it has one, and start it at a moment that was kept.

    Raises UnknownNameError, and StateRefused where the moment does not fit any more or is damaged; the
    machine that runs is ended only when the moment fits.
    """
    directory = _find(lab, name)
    record = states.check(directory, _FILES)
    below = Path(record["state"])
    if not below.exists():
        raise states.StateRefused(f"the saved state that it stands on is gone: {below.name}")
    wanted = states.Wanted(**record["wanted"])
    states.checker(directory, _FILES)()
    vm.remove(vm.lab_directory(lab))
    guest = vm.thaw(
        lab,
        wanted.docker,
        directory,
        record["state"],
        memory_mb=wanted.memory_mb,
    )
    guest.set_clock()
    return guest


def remove(lab: str, name: str) -> None:
    """Remove a moment; raises UnknownNameError."""
    shutil.rmtree(_find(lab, name))


def states_in_use() -> set[str]:
    """Return the saved states that moments stand on."""
    found = (paths.cache() / "checkpoints").glob(f"*/*/{states.RECORD}")
    return {str(states.read(record.parent)["state"]) for record in found}


def _home(lab: str) -> Path:
    return paths.cache() / "checkpoints" / lab


def _find(lab: str, name: str) -> Path:
    known = [moment.name for moment in kept(lab)]
    if name not in known:
        hint = "labkit checkpoint list"
        raise UnknownNameError(f"checkpoint of lab {lab!r}", name, known, hint=hint)
    return _home(lab) / name
