"""Runs embedded machines: one QEMU process a lab, its Docker API over TLS on loopback only.

A lab's machine has a directory of its own with its disk (a copy-on-write layer), QEMU's sockets and
logs, and `machine.json`, which says how to reach it. Stopping it removes the directory.
"""

from __future__ import annotations

import asyncio
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
    from docker import DockerClient

_NETWORK = "192.168.199.0/24"  # Swarm's own pool is 10.0.0.0/8, Docker's begins at 172.17
_GUEST = "192.168.199.15"
_API_PORT = 2376
_START_SECONDS = 240.0
_IMPORT_SECONDS = 900.0
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
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
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


def prepared_disk(docker: str, progress: Progress) -> Path:
    """Return the disk that has the machine and the node image of a Docker version, making it once."""
    target = paths.cache() / f"nodes-{docker}-{machine.key()}-{bootstrap.node_key(docker)}"
    if target.exists():
        return target / "disk.qcow2"
    with machine.build_lock():
        if target.exists():
            return target / "disk.qcow2"
        base = machine.build(progress)
        tar = bootstrap.node_tar(docker, progress)
        unfinished = paths.cache() / f"unfinished-nodes-{os.getpid()}"
        unfinished.mkdir(mode=0o700)
        try:
            with progress.stage(f"node image with Docker {docker} into the machine"):
                _import_image(docker, tar, base, unfinished)
            os.replace(unfinished, target)
        finally:
            remove(unfinished)
    return target / "disk.qcow2"


def _import_image(docker: str, tar: Path, base: Path, directory: Path) -> None:
    """Start a machine that takes the node image from a second disk and then ends by itself."""
    verdict = accel.decide(base)
    disk = _layer(directory, base / "disk.qcow2")
    key = f"labkit.image={images.name(docker)} labkit.key={bootstrap.node_key(docker)}"
    extra = [
        *("-drive", f"file={tar},if=none,id=tar,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=tar"),
    ]
    process = _qemu(directory, base, disk, verdict, 2048, _cpus(), cmdline=key, extra=extra)
    serial = directory / "serial.log"
    try:
        process.wait(_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
    log = serial.read_text(errors="replace").splitlines()
    if not any(line.startswith("labkit: imported") for line in log):
        raise bootstrap.failed("putting the node image into the machine", log[-12:], directory)
    for leftover in directory.iterdir():
        if leftover != disk:
            leftover.unlink()


def _layer(directory: Path, backing: Path) -> Path:
    """Make a disk that holds only what differs from another, which it never touches."""
    disk = directory / "disk.qcow2"
    argv = [bootstrap.tool("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    subprocess.run([*argv, "-b", str(backing), str(disk)], check=True, capture_output=True)
    return disk


def _cpus() -> int:
    return min(4, os.cpu_count() or 1)


def start(lab: str, docker: str, directory: Path, backing: Path, *, memory_mb: int) -> Machine:
    """Start a machine on a fresh layer over `backing`, wait for its engine, and record it.

    Raises WaitTimeout with the machine's last words; nothing is left running then.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = machine.directory()
    verdict = accel.decide(base)
    disk = _layer(directory, backing)
    process = _qemu(directory, base, disk, verdict, memory_mb, _cpus())
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
    directory: Path,
    base: Path,
    disk: Path,
    verdict: accel.Verdict,
    memory_mb: int,
    cpus: int,
    *,
    cmdline: str = "",
    extra: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    forward = f"tcp:127.0.0.1:0-{_GUEST}:{_API_PORT}"
    argv = [
        bootstrap.tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"),
        *verdict.options,
        *("-smp", str(cpus), "-m", str(memory_mb)),
        *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd")),
        *("-append", f"console=ttyS0 quiet panic=-1 {cmdline}".strip()),
        *("-serial", "file:serial.log"),
        # The layer lives as long as the lab: there is nothing to keep through a power cut.
        *("-drive", f"file={disk},if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"user,id=net,restrict=on,net={_NETWORK},hostfwd={forward}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off"),
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        *extra,
    ]
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


def kill(guest: Machine) -> None:
    """End a machine's QEMU; what it held is on a layer that goes with it."""
    import psutil

    if not guest.alive:
        return
    try:
        process = psutil.Process(guest.pid)
        process.kill()
        process.wait(20)
    except psutil.NoSuchProcess:
        return


def remove(directory: Path) -> None:
    """End the machine of a directory, if it runs, and remove the directory."""
    if (directory / _RECORD).exists():
        kill(read(directory))
    shutil.rmtree(directory, ignore_errors=True)


def lab_directory(lab: str) -> Path:
    """Return the directory of a lab's machine."""
    return paths.machines() / lab


def up(lab: str, docker: str, *, nodes: int, progress: Progress) -> Machine:
    """Start the machine of a lab. Raises SwarmError where the lab has one."""
    directory = lab_directory(lab)
    if find(lab):
        raise SwarmError(f"lab {lab!r} has a machine already", hint=f"labkit down --lab {lab}")
    remove(directory)
    backing = prepared_disk(docker, progress)
    with progress.stage("starting the embedded machine"):
        try:
            return start(lab, docker, directory, backing, memory_mb=memory_for(nodes))
        except BaseException:
            remove(directory)
            raise


def memory_for(nodes: int) -> int:
    """Return the machine's memory in MB: 170 a node were measured, and labs need room for tasks."""
    return 1536 + 512 * max(nodes, 3)
