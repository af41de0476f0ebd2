"""Starts embedded machines: booted, out of a snapshot, or out of a checkpoint; and saves them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labkit import files
from labkit.engines import debian
from labkit.engines.vm import accel, image, isolation, machine, proxy_process, qmp
from labkit.engines.vm.machine import Machine
from labkit.errors import EngineError, WaitTimeout

log = logging.getLogger(__name__)

RAM, DEVICES = "ram", "devices"  # the files of a snapshot, beside its layers
WHOLE = "machine"  # the file of a checkpoint, beside its layers
LAYERS = ("root.qcow2", "store.qcow2")

_NETWORK = "192.168.199.0/24"  # Swarm's own pool is 10.0.0.0/8, Docker's begins at 172.17
_GUEST = "192.168.199.15"
_API_PORT = 2376
_RELAY_PORT = 2377
_MONITOR_SECONDS = 20.0  # from the start of QEMU to its monitor
_START_SECONDS = 240.0
_BOOTS = 4
_READS_ONLY = (8, 2)  # the first QEMU that maps a file privately which it cannot write to
_SETTLE_SECONDS = 90.0
_QUIET_PERCENT = 40.0  # of one processor
_MOST_PROCESSORS = 4
# One learner's machine for an hour: what the kernel does against other tenants costs time only.
_KERNEL = "mitigations=off init_on_alloc=0 audit=0 apparmor=0"


def processors() -> int:
    """Return how many processors a machine gets."""
    return min(_MOST_PROCESSORS, os.cpu_count() or 1)


# --- three ways to start one ---------------------------------------------------------------------


def boot(lab: str, docker: str, disks: Path, nodes: Path, *, memory_mb: int) -> Machine:
    """Start a machine with the daemon's store `nodes`, wait for its daemon, and record it.

    Its layers and its memory lie in the directory `disks`, where `save` can leave a snapshot of them.
    It is behind its proxy from the start: others may have its keys, and what they leave in it would be
    in every lab. A kernel that panics while it boots gets another try: emulated, a few in a hundred do
    (decisions.md). Raises WaitTimeout with the machine's last lines; nothing is left running then.
    """
    for attempt in range(1, _BOOTS):
        try:
            return _boot(lab, docker, disks, nodes, memory_mb)
        except _ExitedUnexpectedly as problem:
            log.info("the machine of %s ended while it booted, try %d: %s", lab, attempt, problem.last)
    return _boot(lab, docker, disks, nodes, memory_mb)


def _boot(lab: str, docker: str, disks: Path, nodes: Path, memory_mb: int) -> Machine:
    for old in disks.iterdir():
        old.unlink()
    machine.remove(machine.lab_directory(lab))
    directory = _own_directory(lab)
    for name, backing in zip(LAYERS, (image.directory() / "disk.qcow2", nodes), strict=True):
        _layer(disks / name, backing)
    ram = f"memory-backend-file,id=ram,size={memory_mb}M,mem-path={disks / RAM},share=on"
    with (
        proxy_process.start(directory) as proxy,
        _launched(lab, disks, ram, memory_mb, beside=proxy.pid) as qemu,
    ):
        # Before its daemon answers: the proxy carries nothing until it is written down.
        started = proxy.before(qemu.machine(lab, docker, snapshot="")).record()
        try:
            _wait_for_daemon(started, qemu.process)
        except BaseException:
            # One with a record counts as a lab's that crashed.
            (directory / machine.RECORD).unlink(missing_ok=True)
            raise
        return started


def restore(
    lab: str, docker: str, snapshot: Path, *, memory_mb: int, verify: Callable[[], None]
) -> Machine:
    """Start a machine out of a snapshot, which it never writes to, and record it.

    `verify` looks at the snapshot's files while QEMU reads them, and raises where they are damaged: the
    machine runs only after it has returned. Raises EngineError where QEMU refuses the snapshot.
    """
    directory = _own_directory(lab)
    for name in LAYERS:
        _layer(directory / name, snapshot / name)
    memory = _memory_of(snapshot, directory)
    # Private: what the machine changes is copied first, so that labs share the file through the page
    # cache and none can alter it.
    ram = f"memory-backend-file,id=ram,size={memory_mb}M,mem-path={memory},share=off"
    with (
        proxy_process.start(directory) as proxy,
        _launched(lab, directory, ram, memory_mb, incoming=True, beside=proxy.pid) as qemu,
    ):
        qmp.load(directory, snapshot / DEVICES, shared_memory=True, verify=verify)
        return proxy.before(qemu.machine(lab, docker, snapshot=str(snapshot))).record()


def _memory_of(snapshot: Path, directory: Path) -> str:
    """Return the file of a snapshot's memory, with QEMU's options where it may only be read.

    QEMU before 8.2 opens it to write to it, though it maps it privately; it gets a copy then, which
    ends with the lab.
    """
    file = snapshot / RAM
    if os.access(file, os.W_OK):
        return str(file)
    if (accel.qemu_release() or _READS_ONLY) >= _READS_ONLY:
        return f"{file},readonly=on,rom=off"
    copy = directory / RAM
    files.copy_sparse(file, copy)
    copy.chmod(0o600)
    return str(copy)


def restore_whole(lab: str, docker: str, saved: Path, snapshot: str, *, memory_mb: int) -> Machine:
    """Start a machine out of what `save_whole` wrote of it. It came from `snapshot` once."""
    directory = _own_directory(lab)
    for name in LAYERS:
        shutil.copyfile(saved / name, directory / name)
    with (
        proxy_process.start(directory) as proxy,
        _launched(lab, directory, _ram(memory_mb), memory_mb, incoming=True, beside=proxy.pid) as qemu,
    ):
        qmp.load(directory, saved / WHOLE, shared_memory=False)
        return proxy.before(qemu.machine(lab, docker, snapshot=snapshot)).record()


def _ram(memory_mb: int) -> str:
    """The memory of a machine that comes out of one file."""
    return f"memory-backend-ram,id=ram,size={memory_mb}M"


# --- two ways to save one ------------------------------------------------------------------------


def settle(running: Machine) -> None:
    """Wait until a machine has little left to do: what is saved busy goes on busy in every lab.

    A fresh swarm of three keeps two emulated processors busy for ten seconds (measured). One that does
    not come to rest in time is taken as it is.
    """
    import psutil

    process = psutil.Process(running.pid)
    deadline = time.monotonic() + _SETTLE_SECONDS
    process.cpu_percent()
    while process.cpu_percent(interval=1.0) > _QUIET_PERCENT and time.monotonic() < deadline:
        pass


def save(running: Machine, devices: Path) -> None:
    """End a booted machine and write the state of its devices; its memory and disks are in files."""
    directory = Path(running.directory)
    qmp.save_and_quit(directory, devices)
    machine.wait_for_end(directory)


def save_whole(running: Machine, into: Path) -> None:
    """Write down a whole machine, memory and layers, into a directory; it stands still meanwhile."""
    qmp.save_whole(Path(running.directory), into / WHOLE, LAYERS)


# --- a machine that rests ------------------------------------------------------------------------


def resume(paused: Machine) -> None:
    """Let a machine go on that stands still in its process."""
    qmp.resume(Path(paused.directory))


def hibernate(running: Machine, unwanted: Callable[[], bool]) -> bool:
    """Write a machine into its directory and end its QEMU, if it is `unwanted` even then.

    It stands still afterwards where it is not; returns whether it was ended. One that was booted is
    never ended: its layers are not in its directory.
    """
    if not running.state:
        return False
    directory = Path(running.directory)
    part = directory / f"{machine.HIBERNATED}.part"

    def written() -> bool:
        if unwanted():
            part.rename(running.hibernated)
            return True
        return False

    try:
        ended = qmp.save_whole_and_quit(directory, part, written)
    finally:
        part.unlink(missing_ok=True)
    if ended:
        machine.wait_for_end(directory)
    return ended


def wake(asleep: Machine) -> Machine:
    """Start a machine out of what `hibernate` wrote of it; it goes on where it was.

    Raises EngineError where QEMU does not take it; it is still hibernated then.
    """
    directory = Path(asleep.directory)
    machine.end_qemus(directory)  # of one who was killed before he had ended it, or while he woke it
    ram = _ram(asleep.memory_mb)
    with _launched(asleep.lab, directory, ram, asleep.memory_mb, incoming=True) as qemu:
        started = qemu.machine(asleep.lab, asleep.docker, snapshot=asleep.state)
        here = replace(asleep, pid=started.pid, inside=started.inside, accel=started.accel).record()
        # Once it runs, the layers differ from what the file has: it must not be taken once more.
        qmp.load(directory, asleep.hibernated, shared_memory=False, loaded=asleep.hibernated.unlink)
        return here


# --- QEMU ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Qemu:
    """A QEMU whose monitor answers."""

    directory: Path
    process: subprocess.Popen[bytes]
    accel: str
    memory_mb: int

    def machine(self, lab: str, docker: str, *, snapshot: str) -> Machine:
        """Describe the machine that runs in it."""
        ports = qmp.forwarded_ports(self.directory)
        if set(ports) != {_API_PORT, _RELAY_PORT}:
            raise EngineError(f"QEMU names other ports than the machine's: {ports}")
        return Machine(
            lab=lab,
            docker=docker,
            accel=self.accel,
            memory_mb=self.memory_mb,
            pid=self.process.pid,
            inside=(ports[_API_PORT], ports[_RELAY_PORT]),
            port=ports[_API_PORT],
            relay=ports[_RELAY_PORT],
            tls=str(image.directory() / "tls"),
            directory=str(self.directory),
            state=snapshot,
        )


@contextlib.contextmanager
def _launched(
    lab: str,
    disks: Path,
    ram: str,
    memory_mb: int,
    *,
    incoming: bool = False,
    beside: int | None = None,
) -> Iterator[_Qemu]:
    """Start QEMU in the lab's directory, in the network of the process `beside`, or of this one.

    It ends where the body fails. Raises EngineError where one works there already.
    """
    directory = _own_directory(lab)
    if working := machine.qemus_in(directory):
        # Two of them would write to the same disks.
        raise EngineError(
            f"lab {lab!r} has a QEMU already: process {working[0].pid} in {directory}",
            hint=f"labkit status --lab {lab}, since another command may have started it; "
            f"labkit down --lab {lab} ends it",
        )
    (directory / "qmp.sock").unlink(missing_ok=True)  # of one that was killed: nobody listens there
    verdict = accel.decide(image.directory())
    argv = _qemu_argv(disks, ram, memory_mb, verdict, incoming=incoming)
    process = _start_qemu(directory, argv, beside or os.getpid())
    try:
        deadline = time.monotonic() + _MONITOR_SECONDS
        while not (directory / "qmp.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise qmp.qemu_error(directory, "did not start")
            time.sleep(0.01)
        yield _Qemu(directory, process, verdict.accel, memory_mb)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _start_qemu(directory: Path, argv: list[str], beside: int) -> subprocess.Popen[bytes]:
    log.debug("in %s: %s", directory, " ".join(argv))
    with (directory / "qemu.log").open("wb") as output:
        # A session of its own: Ctrl-C ends labkit, and labkit ends QEMU.
        return isolation.start_beside(
            beside,
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _qemu_argv(
    disks: Path, ram: str, memory_mb: int, verdict: accel.Verdict, *, incoming: bool
) -> list[str]:
    base = image.directory()
    forwards = ",".join(f"hostfwd=tcp:127.0.0.1:0-{_GUEST}:{p}" for p in (_API_PORT, _RELAY_PORT))
    argv = [
        debian.tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35,memory-backend=ram", "-m", str(memory_mb), "-object", ram),
        *(verdict.options_of_a_lab if incoming else verdict.options),
        *("-smp", str(processors())),
        *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd")),
        *("-append", f"console=ttyS0 quiet panic=-1 {_KERNEL}"),
        *("-serial", "file:serial.log"),
        *("-netdev", f"user,id=net,restrict=on,net={_NETWORK},{forwards}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        # Another id at each start tells the guest's kernel that it is a copy: it takes a new seed
        # before anything runs in it again.
        *("-device", "vmgenid,guid=auto"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off"),
        *(("-incoming", "defer") if incoming else ()),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]
    for disk in (disks / name for name in LAYERS):
        # A layer lives as long as the lab: there is nothing to keep through a power cut.
        drive = f"file={disk},if=none,id={disk.stem},format=qcow2,cache=unsafe,discard=unmap"
        argv += ["-drive", drive, "-device", f"virtio-blk-pci,drive={disk.stem}"]
    return argv


def _own_directory(lab: str) -> Path:
    directory = machine.lab_directory(lab)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def _layer(disk: Path, backing: Path) -> None:
    """Make a disk that holds only what differs from another, which it never touches."""
    argv = [debian.tool("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    # Relative, so that the cache can be moved as a whole.
    below = os.path.relpath(backing, disk.parent)
    subprocess.run([*argv, "-b", below, str(disk)], check=True, capture_output=True)


class _ExitedUnexpectedly(WaitTimeout):
    """A machine whose QEMU ended before its daemon answered."""


def _wait_for_daemon(started: Machine, process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    client = started.client(timeout=3)
    last, error = "no answer yet", WaitTimeout
    while time.monotonic() - began < _START_SECONDS:
        if process.poll() is not None:
            last, error = f"QEMU ended with code {process.returncode}", _ExitedUnexpectedly
            break
        try:
            if client.ping():
                client.close()
                return
        except Exception as problem:  # refused, reset, timed out: it is still starting
            last = f"{type(problem).__name__}"
        time.sleep(0.2)
    raise error(
        "the Docker engine of the embedded machine to answer",
        seconds=time.monotonic() - began,
        last=last,
        log=machine.tail(Path(started.directory) / "serial.log"),
        hint="`labkit doctor` tells what this machine can run; a busy machine needs another try",
    )
