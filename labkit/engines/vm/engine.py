"""The engine `vm`: a private Docker daemon in a virtual machine; no Docker here, no root.

It alone knows of snapshots: a swarm that was made once is started again out of what was written down of
it, and made by the recipe only where there is nothing that fits.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from labkit import paths
from labkit.engines import debian, locks
from labkit.engines.base import Acquired, Check, Connection, Recipe, SwarmSpec
from labkit.engines.vm import (
    accel,
    checkpoints,
    image,
    machine,
    process,
    proxy_process,
    snapshots,
    standby,
)
from labkit.engines.vm.machine import INNER_LAB, Machine
from labkit.errors import EngineError, LabkitError, SwarmError

if TYPE_CHECKING:
    from labkit.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")

_LEAST_MEMORY = 2e9  # bytes that `doctor` asks for
_LAST_MOMENTS_S = 5.0  # from a panic, of which clients hear at once, until the machine has no process


class VmEngine:
    """A Docker daemon in an embedded machine, one machine per lab."""

    kind = "vm"

    def refusal(self) -> str:
        """It is built where it is missing, so it is never refused beforehand."""
        return ""

    def label(self, lab: str) -> str:
        """Return what a lab is called inside its machine: the same for all."""
        return INNER_LAB

    def acquire(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], *, fresh: bool, progress: Progress
    ) -> Acquired[T]:
        """Restore the swarm from a snapshot; where none fits, make one first."""
        if (lines := machine.crash_log(lab)) is not None:
            progress.say(f"the machine of lab {lab!r} had ended by itself; its last words:\n{lines}")
        standby.idle()  # before anything is started: it may be wrong
        machine.remove(machine.lab_directory(lab))
        store = image.node_disk(spec.docker, progress)
        snapshot = snapshots.newest(spec)
        if snapshot and not fresh:
            try:
                snapshots.check(snapshot)
                return self._restored(lab, spec, snapshot, recipe, restored=True)
            except (EngineError, SwarmError, OSError) as refused:
                log.info("the snapshot %s is refused: %s", snapshot.name, refused.args[0])
                progress.say(f"the saved state is not used: {refused.args[0]}; it is made anew")
        snapshot = self._snapshot(lab, spec, recipe, store, progress)
        return self._restored(lab, spec, snapshot, recipe, restored=False)

    def _restored(
        self, lab: str, spec: SwarmSpec, snapshot: Path, recipe: Recipe[T], *, restored: bool
    ) -> Acquired[T]:
        """Start the machine of a lab from a snapshot and prove that the swarm is there."""
        started = process.restore(
            lab,
            spec.docker,
            snapshot,
            memory_mb=snapshots.memory_mb(spec),
            verify=snapshots.verifier(snapshot),
        )
        snapshots.mark_used(snapshot)
        with ThreadPoolExecutor(1) as thread:
            woken = thread.submit(started.wake)
            found = recipe.find(started.connection(self.kind))
            answered = time.monotonic()
            woken.result()
        try:
            with ThreadPoolExecutor(1) as thread:
                renewed = thread.submit(recipe.renew, found)
                recipe.prove(found)
                renewed.result()
        except BaseException:
            recipe.close(found)
            raise
        return Acquired(found, answered, restored)

    def _snapshot(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], store: Path, progress: Progress
    ) -> Path:
        """Make the swarm in a machine of its own and write that down; returns the snapshot."""
        directory = snapshots.new_directory(lab)
        running = self._made(lab, spec, recipe, directory, store, progress)
        with progress.stage("letting the swarm come to rest"):
            process.settle(running)
        with progress.stage("saving the swarm's state"):
            process.save(running, directory / process.DEVICES)
            machine.remove(machine.lab_directory(lab))
            snapshot = snapshots.publish(spec, directory)
            in_use = {running.state for running in machine.found()}
            snapshots.prune(in_use | checkpoints.snapshots_in_use())
        return snapshot

    def _made(
        self,
        lab: str,
        spec: SwarmSpec,
        recipe: Recipe[T],
        directory: Path,
        store: Path,
        progress: Progress,
    ) -> Machine:
        """Boot a machine and make the swarm in it; one that exits unexpectedly is booted again.

        QEMU before 8.1 may run kernel code that is half rewritten, and the guest panics: see
        process.boot.
        """

        def attempt() -> Machine:
            with progress.stage("starting the embedded machine"):
                memory = snapshots.memory_mb(spec)
                running = process.boot(lab, spec.docker, directory, store, memory_mb=memory)
            recipe.close(recipe.make(running.connection(self.kind)))
            return running

        try:
            return attempt()
        except Exception:
            if (lines := machine.crash_log(lab, patience_s=_LAST_MOMENTS_S)) is None:
                raise
            progress.say(f"the machine ended by itself and is started anew; its last words:\n{lines}")
        return attempt()

    def find(self, lab: str) -> Connection | None:
        """Return the daemon in the lab's machine, None where no machine runs.

        One that stands still because who saved it was killed goes on first.
        """
        begun = locks.begun(lab)
        if begun and begun.step == "saving" and not begun.held:
            with locks.hold(lab) as held:
                checkpoints.go_on(lab, held)
        running = machine.find(lab)
        return proxy_process.reached(running).connection(self.kind) if running else None

    def hibernate(self, lab: str) -> bool:
        """Put a lab's machine away on disk, as if it had been left alone for long.

        Who asks it something next wakes it. Returns whether a machine ran. Raises EngineError where
        somebody changes the lab just now.
        """
        with locks.hold(lab) as held:
            running = machine.find(lab)
            if running is None or held.cut_short == "making":  # it is no lab yet
                return False
            directory = machine.lab_directory(lab)
            machine.end_proxies(directory)  # first: one could wake it meanwhile, or is at it
            if running.hibernated.exists():
                machine.end_qemus(directory)
                return False
            with held.step("saving"):
                return process.hibernate(running, unwanted=lambda: True)

    def spec_of(self, lab: str) -> SwarmSpec | None:
        """Return what the lab's snapshot was made for, whether its machine still runs or not."""
        try:
            state = machine.read(machine.lab_directory(lab)).state
            return snapshots.spec_in(snapshots.read(Path(state))) if state else None
        except (EngineError, OSError, ValueError, KeyError, TypeError):
            return None

    def labs(self) -> list[str]:
        """List the labs with a machine or the beginning of a snapshot."""
        return sorted({*machine.leftovers(), *snapshots.leftovers()})

    def remove(self, lab: str) -> bool:
        """End the machine of a lab; all that is in it goes at once."""
        directory, unfinished = machine.lab_directory(lab), snapshots.unfinished(lab)
        if not (directory.exists() or unfinished.exists()):
            return False
        machine.remove(directory)
        machine.remove(unfinished)
        return True

    def sweep(self) -> None:
        """Remove what killed commands have left in the cache: builds, imports, checkpoints."""
        debian.sweep()
        checkpoints.sweep()

    def crash_log(self, lab: str) -> str | None:
        """Return the last lines of a machine that exited unexpectedly."""
        return machine.crash_log(lab)

    def checkpoints(self, lab: str) -> checkpoints.MachineCheckpoints:
        """Return the checkpoints of a lab."""
        return checkpoints.MachineCheckpoints(lab)

    def accel(self) -> str:
        """Return "kvm" or "tcg"."""
        return _verdict().accel

    def facts(self) -> dict[str, str]:
        """Return the accelerator with its reason, and QEMU's version."""
        return {"engine": f"{self.kind}, {_verdict().reason}", "qemu": accel.qemu_version()}

    def examine(self) -> list[Check]:
        """Look at what building and running a machine needs here."""
        verdict = _verdict()
        built = image.directory().exists()
        detail = str(image.directory()) if built else "not built yet; `labkit up` builds it, once"
        return [
            _packages(built),
            _user_namespace(),
            _space(),
            _memory(),
            Check("accelerator", verdict.accel == "kvm", verdict.reason, verdict.remedy),
            *_qemu(verdict),
            Check("embedded machine", built, detail, "labkit vm build"),
        ]


def _verdict() -> accel.Verdict:
    if not image.directory().exists():
        return accel.Verdict("tcg", "KVM is tried when the machine has been built", "labkit vm build")
    try:
        return accel.decide(image.directory())
    except LabkitError as problem:  # QEMU is gone, say: the other rows tell what is missing
        return accel.Verdict("tcg", problem.args[0], problem.hint)


def _qemu(verdict: accel.Verdict) -> list[Check]:
    """Recommend another QEMU where this one emulates and is older than 8.1 (see docs/decisions.md)."""
    try:
        release = accel.qemu_release()
    except LabkitError:  # it is missing, as another row tells
        return []
    name = "version {}.{}".format(*release) if release else accel.qemu_version()
    if verdict.accel == "kvm" or accel.is_steady():
        return [Check("QEMU", True, name)]
    steady = ".".join(map(str, accel.STEADY))
    detail = (
        f"{name}; before {steady} an emulated machine panics once in a while, and takes more memory"
    )
    return [Check("QEMU", False, detail, "a newer QEMU: Debian 12 has one in bookworm-backports")]


def _packages(built: bool) -> Check:
    missing = debian.missing_tools(debian.RUN_TOOLS if built else debian.TOOLS)
    if missing:
        problem = debian.tools_error(missing)
        return Check("Debian packages", False, f"missing: {', '.join(missing)}", problem.hint)
    return Check("Debian packages", True, "all that the embedded machine needs are here")


def _user_namespace() -> Check:
    name = "building as this user"
    if os.geteuid() == 0:
        return Check(name, True, "root builds without user namespaces")
    user = pwd.getpwuid(os.geteuid()).pw_name
    ranges = Path("/etc/subuid").read_text() if Path("/etc/subuid").exists() else ""
    if any(line.split(":")[0] in (user, str(os.geteuid())) for line in ranges.splitlines()):
        return Check(name, True, f"{user} has a range of subordinate ids")
    remedy = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    return Check(name, False, f"{user} has no range in /etc/subuid", remedy)


def _space() -> Check:
    directory = paths.cache()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    remedy = "make room, or set LABKIT_HOME to a directory on a larger disk"
    detail = f"{free / 1e9:.0f} GB free in {directory}"
    return Check("disk", free > debian.NEEDED_BYTES, detail, remedy)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    detail = f"{free / 1e9:.1f} GB available"
    return Check("memory", free > _LEAST_MEMORY, detail, "close other programs")
