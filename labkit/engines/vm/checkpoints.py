"""Saves, lists and restores checkpoints of a running lab.

A checkpoint is the whole embedded machine, its memory and the layers over its disks. It lies in the
cache and outlives the lab; it needs the snapshot that the lab came from, whose disks are below its
layers.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from labkit import files, paths
from labkit.engines import debian, locks
from labkit.engines.base import Checkpoint
from labkit.engines.vm import machine, process, proxy_process, snapshots
from labkit.errors import EngineError, UnknownNameError, UsageError

MOST = 5
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
_UNFINISHED = ".unfinished-"
_FILES = (process.WHOLE, *process.LAYERS)


class MachineCheckpoints:
    """The checkpoints of one lab."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._home = home() / lab

    def list(self) -> list[Checkpoint]:
        """Return them, oldest first."""
        found = []
        for directory in self._home.glob("[!.]*"):
            record = snapshots.read(directory)
            size = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
            found.append(Checkpoint(directory.name, record["created"], size))
        return sorted(found, key=lambda checkpoint: checkpoint.created)

    def save(self, name: str) -> None:
        """Save the running lab; raises UsageError, and EngineError where it has no machine."""
        with locks.hold(self._lab) as held:
            go_on(self._lab, held)
            self._refuse(name)
            self._save(name, held)

    def _save(self, name: str, held: locks.Hold) -> None:
        running = machine.find(self._lab) if held.cut_short is None else None
        if running is None:
            raise EngineError(
                f"lab {self._lab!r} does not run on the embedded machine, and nothing else can be kept",
                hint="labkit up --engine vm",
            )
        debian.demand_space(paths.cache())
        self.remove_leftovers()
        unfinished = self._home / f"{_UNFINISHED}{name}"
        unfinished.mkdir(parents=True, mode=0o700)
        running.set_clock()  # a machine that rests is woken by that
        try:
            with held.step("saving"):
                process.save_whole(running, unfinished)
            running.set_clock()
            spec = snapshots.spec_in(snapshots.read(Path(running.state)))
            record = snapshots.record_of(spec, unfinished, _FILES)
            files.write_json(unfinished / snapshots.RECORD, {**record, "state": running.state})
            unfinished.rename(self._home / name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _refuse(self, name: str) -> None:
        """Raise UsageError where no checkpoint of that name can be saved."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a checkpoint's name: small letters, digits, hyphens, 31 at most",
                hint="labkit checkpoint save before-the-fault",
            )
        names = [checkpoint.name for checkpoint in self.list()]
        if name in names:
            raise UsageError(
                f"lab {self._lab!r} has a checkpoint {name!r} already",
                hint=f"labkit checkpoint remove {name}, or take another name",
            )
        if len(names) >= MOST:
            raise UsageError(
                f"lab {self._lab!r} has {len(names)} checkpoints, {MOST} at most: {', '.join(names)}",
                hint="labkit checkpoint remove NAME",
            )

    def restore(self, name: str) -> None:
        """End the lab's machine, if it has one, and start it out of a checkpoint.

        Raises UnknownNameError, and SnapshotRefused where the checkpoint does not fit any more or is
        damaged; the machine that runs is ended only when the checkpoint fits.
        """
        with locks.hold(self._lab) as held:
            self._restore(name, held)

    def _restore(self, name: str, held: locks.Hold) -> None:
        directory = self._find(name)
        record = snapshots.check(directory, _FILES)
        below = Path(record["state"])
        if not below.exists():
            raise snapshots.SnapshotRefused(f"the snapshot that it stands on is gone: {below.name}")
        spec = snapshots.spec_in(record)
        snapshots.verifier(directory, _FILES)()
        with held.step("making"):
            machine.remove(machine.lab_directory(self._lab))
            started = process.restore_whole(
                self._lab,
                spec.docker,
                directory,
                record["state"],
                memory_mb=snapshots.memory_mb(spec),
            )
            started.wake()

    def remove(self, name: str) -> None:
        """Remove a checkpoint; raises UnknownNameError."""
        # Out of its name first: a removal that is interrupted must not leave half a checkpoint.
        with locks.hold(self._lab) as held:
            go_on(self._lab, held)
            gone = self._home / f"{_UNFINISHED}{name}"
            shutil.rmtree(gone, ignore_errors=True)
            self._find(name).rename(gone)
            shutil.rmtree(gone)

    def remove_leftovers(self) -> None:
        """Remove what killed commands have left; call it under the lab's lock."""
        for left in self._home.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)

    def _find(self, name: str) -> Path:
        known = [checkpoint.name for checkpoint in self.list()]
        if name not in known:
            hint = "labkit checkpoint list"
            raise UnknownNameError(f"checkpoint of lab {self._lab!r}", name, known, hint=hint)
        return self._home / name


def go_on(lab: str, held: locks.Hold) -> None:
    """Let a lab's machine go on where who saved it was killed meanwhile; one that is on disk stays."""
    if held.cut_short == "saving":
        running = machine.find(lab)
        if running and not running.hibernated.exists():
            process.resume(running)
            # Its proxy, if that is who was killed, has to be there to reach it.
            proxy_process.reached(running).set_clock()
        held.done()


def sweep() -> None:
    """Remove what killed commands have left of the checkpoints of every lab."""
    for unfinished in home().glob(f"*/{_UNFINISHED}*"):
        lab = unfinished.parent.name
        with locks.hold(lab) as held:
            go_on(lab, held)
            MachineCheckpoints(lab).remove_leftovers()


def home() -> Path:
    """Return the directory of all checkpoints, one directory for each lab."""
    return paths.cache() / "checkpoints"


def snapshots_in_use() -> set[str]:
    """Return the snapshots that checkpoints of any lab stand on."""
    found = home().glob(f"*/[!.]*/{snapshots.RECORD}")
    return {str(snapshots.read(record.parent)["state"]) for record in found}
