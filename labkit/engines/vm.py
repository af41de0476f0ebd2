"""Runs embedded machines: one QEMU process a lab, its Docker API over TLS on loopback only.

A lab's machine has a directory of its own with its disk (a copy-on-write layer), QEMU's sockets and
logs, and `machine.json`, which says how to reach it. Stopping it removes the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.engines import accel, bootstrap, images, machine
from labkit.errors import EngineError, SwarmError, WaitTimeout
from labkit.progress import Progress

if TYPE_CHECKING:
    import psutil
    from docker import DockerClient

_NETWORK = "192.168.199.0/24"  # Swarm's own pool is 10.0.0.0/8, Docker's begins at 172.17
_GUEST = "192.168.199.15"
_API_PORT = 2376
_START_SECONDS = 240.0
# One learner's machine for an hour: what the kernel does against other tenants costs time only.
_KERNEL = "mitigations=off init_on_alloc=0 audit=0 apparmor=0"
_RECORD = "machine.json"


@dataclass(frozen=True)
class Machine:
    """A running embedded machine and how to reach its engine."""

    lab: str
    docker: str
    accel: str
    pid: int
    started: float
    port: int
    tls: str
    directory: str

    @property
    def alive(self) -> bool:
        """Whether its QEMU still runs; a pid that was given to another program does not count."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            # Killed, but not yet read by the program that started it.
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def environment(self) -> dict[str, str]:
        """What an ordinary docker client needs in its environment."""
        return {
            "DOCKER_HOST": f"tcp://127.0.0.1:{self.port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": self.tls,
        }

    def client(self, *, timeout: float = 120.0) -> DockerClient:
        """Return a client of its engine."""
        import docker
        from docker.tls import TLSConfig

        tls = Path(self.tls)
        config = TLSConfig(
            client_cert=(str(tls / "cert.pem"), str(tls / "key.pem")),
            ca_cert=str(tls / "ca.pem"),
            verify=True,
        )
        # The machine's engine is ours, so its API version is known and need not be asked for.
        client = docker.DockerClient(
            base_url=f"tcp://127.0.0.1:{self.port}",
            tls=config,
            version="1.41",
            timeout=int(timeout),
        )
        # A proxy or a REQUESTS_CA_BUNDLE in the environment is not meant for a port of loopback.
        client.api.trust_env = False
        return client


def found() -> list[Machine]:
    """List the machines that run; a directory whose machine has died is not one."""
    machines = (read(path.parent) for path in paths.machines().glob(f"*/{_RECORD}"))
    return sorted((m for m in machines if m.alive), key=lambda m: m.lab)


def find(lab: str) -> Machine | None:
    """Find the machine of a lab."""
    return next((m for m in found() if m.lab == lab), None)


def read(directory: Path) -> Machine:
    """Read how to reach the machine of a directory."""
    return Machine(**json.loads((directory / _RECORD).read_text()))


def node_disk(docker: str, progress: Progress) -> Path:
    """Return the disk that is the engine's store with the node image of a Docker version in it.

    Makes it and the machine where they are missing; raises BuildError.
    """
    target = paths.cache() / f"nodes-{docker}-{bootstrap.node_key(docker)}"
    if target.exists() and machine.directory().exists():
        return target / "disk.qcow2"
    with machine.build_lock():
        machine.build(progress)
        if target.exists():
            return target / "disk.qcow2"
        tar = bootstrap.node_tar(docker, progress)
        unfinished = paths.cache() / f"unfinished-nodes-{os.getpid()}"
        unfinished.mkdir(mode=0o700)
        # compose/node/seed tells why the image is not imported.
        script = 'layer=$("$1" tree "$2" "$3")\ntar -C "$layer" --numeric-owner -xf "$4"'
        seed = paths.COMPOSE / "node" / "seed"
        config = json.dumps(images.config(docker))
        try:
            with progress.stage(f"disk with the node image of Docker {docker}"):
                disk = unfinished / "disk.qcow2"
                machine.make_disk(disk, script, seed, images.name(docker), config, tar)
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target / "disk.qcow2"


def _layer(disk: Path, backing: Path) -> Path:
    """Make a disk that holds only what differs from another, which it never touches."""
    argv = [bootstrap.tool("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    # Relative, so that the cache can be moved as a whole.
    below = os.path.relpath(backing, disk.parent)
    subprocess.run([*argv, "-b", below, str(disk)], check=True, capture_output=True)
    return disk


def start(lab: str, docker: str, directory: Path, nodes: Path, *, memory_mb: int) -> Machine:
    """Start a machine with the engine's store `nodes`, wait for its engine, and record it.

    Raises WaitTimeout with the machine's last words; nothing is left running then.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = machine.directory()
    verdict = accel.decide(base)
    disks = [
        _layer(directory / "root.qcow2", base / "disk.qcow2"),
        _layer(directory / "store.qcow2", nodes),
    ]
    process = _qemu(directory, base, disks, verdict, memory_mb)
    try:
        import psutil

        guest = Machine(
            lab=lab,
            docker=docker,
            accel=verdict.accel,
            pid=process.pid,
            started=psutil.Process(process.pid).create_time(),
            port=_published_port(directory, process),
            tls=str(base / "tls"),
            directory=str(directory),
        )
        _wait_for_engine(guest, process)
        (directory / _RECORD).write_text(machine.to_json(asdict(guest)))
    except BaseException:
        process.kill()
        process.wait()
        raise
    return guest


def _qemu(
    directory: Path, base: Path, disks: Sequence[Path], verdict: accel.Verdict, memory_mb: int
) -> subprocess.Popen[bytes]:
    forward = f"tcp:127.0.0.1:0-{_GUEST}:{_API_PORT}"
    argv = [
        bootstrap.tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"),
        *verdict.options,
        *("-smp", str(min(4, os.cpu_count() or 1)), "-m", str(memory_mb)),
        *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd")),
        *("-append", f"console=ttyS0 quiet panic=-1 {_KERNEL}"),
        *("-serial", "file:serial.log"),
        *("-netdev", f"user,id=net,restrict=on,net={_NETWORK},hostfwd={forward}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off"),
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]
    for disk in disks:
        # A layer lives as long as the lab: there is nothing to keep through a power cut.
        drive = f"file={disk},if=none,id={disk.stem},format=qcow2,cache=unsafe,discard=unmap"
        argv += ["-drive", drive, "-device", f"virtio-blk-pci,drive={disk.stem}"]
    with (directory / "qemu.log").open("wb") as log:
        # A session of its own: Ctrl-C ends labkit, and labkit ends QEMU.
        return subprocess.Popen(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _published_port(directory: Path, process: subprocess.Popen[bytes]) -> int:
    """Ask QEMU which port of loopback it took: it chose a free one, so no race for it."""
    socket = directory / "qmp.sock"
    deadline = time.monotonic() + 20
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise EngineError(
                f"QEMU did not start: {(directory / 'qemu.log').read_text().strip()[-500:]}",
                hint="`labkit doctor` tells what this machine can run",
            )
        time.sleep(0.02)
    told = qmp(socket, "human-monitor-command", {"command-line": "info usernet"})
    match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", str(told))
    if not match:
        raise EngineError(f"QEMU names no port for the machine's engine: {told}")
    return int(match[1])


def qmp(socket: Path, command: str, arguments: dict[str, Any] | None = None) -> object:
    """Send one QMP command and return its answer."""
    from qemu.qmp import QMPClient

    async def ask() -> object:
        client = QMPClient("labkit")
        # A unix socket's path has a limit of 108 bytes, a directory's has none.
        await client.connect(_short(socket))
        try:
            return await client.execute(command, arguments)
        finally:
            await client.disconnect()

    # A notebook's kernel runs an event loop already, and asyncio allows one a thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


def _short(socket: Path) -> str:
    relative = os.path.relpath(socket)
    return min(str(socket), relative, key=len)


def _wait_for_engine(guest: Machine, process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    client = guest.client(timeout=3)
    last = "no answer yet"
    while time.monotonic() - began < _START_SECONDS:
        if process.poll() is not None:
            last = f"QEMU ended with code {process.returncode}"
            break
        try:
            if client.ping():
                client.close()
                return
        except Exception as problem:  # refused, reset, timed out: it is still starting
            last = f"{type(problem).__name__}"
        time.sleep(0.2)
    serial = Path(guest.directory) / "serial.log"
    log = serial.read_text(errors="replace").splitlines()[-12:] if serial.exists() else []
    raise WaitTimeout(
        "the Docker engine of the embedded machine to answer",
        seconds=time.monotonic() - began,
        last=last,
        log=log,
        hint="`labkit doctor` tells what this machine can run; a busy machine needs another try",
    )


def remove(directory: Path) -> None:
    """End the machine of a directory, recorded or not, and remove the directory."""
    import psutil

    deadline = time.monotonic() + 20
    while (running := _qemus_in(directory)) and time.monotonic() < deadline:
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
    shutil.rmtree(directory, ignore_errors=True)


def _qemus_in(directory: Path) -> list[psutil.Process]:
    """List the QEMU processes that work in a directory: the record may be missing, they cannot hide."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            at_work = process.status() != psutil.STATUS_ZOMBIE
            ours = process.name().startswith("qemu-system") and process.cwd() == str(directory)
            if at_work and ours:
                found.append(process)
    return found


def lab_directory(lab: str) -> Path:
    """Return the directory of a lab's machine."""
    return paths.machines() / lab


def up(lab: str, docker: str, *, nodes: int, progress: Progress) -> Machine:
    """Start the machine of a lab. Raises SwarmError where the lab has one."""
    directory = lab_directory(lab)
    if find(lab):
        raise SwarmError(f"lab {lab!r} has a machine already", hint=f"labkit down --lab {lab}")
    remove(directory)
    store = node_disk(docker, progress)
    with progress.stage("starting the embedded machine"):
        try:
            return start(lab, docker, directory, store, memory_mb=memory_for(nodes))
        except BaseException:
            remove(directory)
            raise


def memory_for(nodes: int) -> int:
    """Return the machine's memory in MB: 170 a node were measured, and labs need room for tasks."""
    return 1536 + 512 * max(nodes, 3)
