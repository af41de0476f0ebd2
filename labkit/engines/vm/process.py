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
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from labkit import paths
from labkit.engines import debian as bootstrap
from labkit.engines import images
from labkit.engines.vm import accel
from labkit.engines.vm import image as machine
from labkit.errors import EngineError, WaitTimeout
from labkit.progress import Progress
from labkit.transport import live as channel

if TYPE_CHECKING:
    import psutil
    from docker import DockerClient
    from qemu.qmp import QMPClient

INNER_LAB = "vm"
"""What a lab is called on its machine's own engine: a saved state is older than the lab's name."""

_NETWORK = "192.168.199.0/24"  # Swarm's own pool is 10.0.0.0/8, Docker's begins at 172.17
_GUEST = "192.168.199.15"
_API_PORT = 2376
_RELAY_PORT = 2377
_START_SECONDS = 240.0
_ANSWER_SECONDS = 120.0
_CLOCK_SECONDS = 1.0  # how far a restored machine's clock may be off
_CLOCK_TRIES = 8
_BOOTS = 4
_LAST_LINES = 12
_SETTLE_SECONDS = 90.0
_QUIET_PERCENT = 40.0  # of one processor
# One learner's machine for an hour: what the kernel does against other tenants costs time only.
_KERNEL = "mitigations=off init_on_alloc=0 audit=0 apparmor=0"
_RECORD = "machine.json"
RAM, DEVICES = "ram", "devices"  # the files of a saved state, beside its layers
WHOLE = "machine"  # the file of a moment, beside its layers
LAYERS = ("root.qcow2", "store.qcow2")
_MOST_PROCESSORS = 4
_BANDWIDTH = 1 << 34  # bytes a second, that is, none that holds: it goes to a file
_CHUNK = 1 << 22

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Machine:
    """A running embedded machine and how to reach its engine."""

    lab: str
    docker: str
    accel: str
    pid: int
    port: int
    relay: int
    tls: str
    directory: str
    state: str  # the directory of the saved state that it came from; empty where it was booted

    @property
    def alive(self) -> bool:
        """Whether its QEMU still runs; a pid that was given to another program does not count."""
        import psutil

        try:
            return _works_in(psutil.Process(self.pid), self.directory)
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

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=f"{self.tls}/ca.pem")
        context.load_cert_chain(f"{self.tls}/cert.pem", f"{self.tls}/key.pem")
        return context

    def reach(self, pid: int, path: str) -> socket.socket:
        """Connect to a unix socket in the container whose first process is `pid`."""
        address = ("127.0.0.1", self.relay)
        return channel.through_relay(address, self._tls, pid, path, timeout=_ANSWER_SECONDS)

    def set_clock(self) -> float:
        """Set the machine's clock by this one's; returns by how many seconds it is off afterwards.

        The time on the way is lost, so on a busy machine it is set again: a second way is a short one.
        """
        address = ("127.0.0.1", self.relay)
        for _ in range(_CLOCK_TRIES):
            request = {"clock": time.time()}
            with channel.ask_relay(address, self._tls, request, timeout=_ANSWER_SECONDS) as relay:
                answer = json.loads(relay.makefile().readline())
            off = float(answer["clock"]) - time.time()
            if abs(off) < _CLOCK_SECONDS:
                break
        return off

    def client(self, *, timeout: float = _ANSWER_SECONDS) -> DockerClient:
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
    machines = []
    for path in paths.machines().glob(f"*/{_RECORD}"):
        with contextlib.suppress(EngineError):
            machines.append(read(path.parent))
    return sorted((m for m in machines if m.alive), key=lambda m: m.lab)


def find(lab: str) -> Machine | None:
    """Find the machine of a lab that runs; raises EngineError where another kit started it."""
    directory = lab_directory(lab)
    if not (directory / _RECORD).exists():
        return None
    guest = read(directory)
    return guest if guest.alive else None


def read(directory: Path) -> Machine:
    """Read how to reach the machine of a directory; raises EngineError."""
    try:
        return Machine(**json.loads((directory / _RECORD).read_text()))
    except (TypeError, ValueError) as problem:
        raise EngineError(
            f"lab {directory.name!r} was started by another version of labkit",
            hint=f"labkit down --lab {directory.name}",
        ) from problem


def nodes_directory(docker: str) -> Path:
    """Return where the disk with the node image of a Docker version is, made or not."""
    return paths.cache() / f"nodes-{docker}-{bootstrap.node_key(docker)}"


def node_disk(docker: str, progress: Progress) -> Path:
    """Return the disk that is the engine's store with the node image of a Docker version in it.

    Makes it and the machine where they are missing; raises BuildError.
    """
    target = nodes_directory(docker)
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


def boot(lab: str, docker: str, disks: Path, nodes: Path, *, memory_mb: int) -> Machine:
    """Start a machine with the engine's store `nodes`, wait for its engine, and record it.

    Its layers and its memory lie in the directory `disks`, where `save` can leave a state of them. A
    kernel that panics while it boots gets another try: emulated, a few in a hundred do (decisions.md).
    Raises WaitTimeout with the machine's last words; nothing is left running then.
    """
    for _ in range(_BOOTS - 1):
        with contextlib.suppress(_EndedByItself):
            return _boot(lab, docker, disks, nodes, memory_mb)
    return _boot(lab, docker, disks, nodes, memory_mb)


def _boot(lab: str, docker: str, disks: Path, nodes: Path, memory_mb: int) -> Machine:
    for old in disks.iterdir():
        old.unlink()
    remove(lab_directory(lab))
    for name, backing in zip(LAYERS, (machine.directory() / "disk.qcow2", nodes), strict=True):
        _layer(disks / name, backing)
    ram = f"memory-backend-file,id=ram,size={memory_mb}M,mem-path={disks / RAM},share=on"
    with _launched(lab, disks, ram, memory_mb) as launched:
        guest = _described(lab, docker, launched, state="")
        _wait_for_engine(guest, launched.process)
        return _recorded(guest)


def restore(
    lab: str, docker: str, state: Path, *, memory_mb: int, sound: Callable[[], None]
) -> Machine:
    """Start a machine out of a saved state, which it never writes to, and record it.

    `sound` looks at the state's files while QEMU reads them, and raises where they are damaged: the
    machine runs only after it has returned. Raises EngineError where QEMU refuses the state.
    """
    directory = _own_directory(lab)
    for name in LAYERS:
        _layer(directory / name, state / name)
    # Private: what the machine changes is copied first, so that labs share the file through the page
    # cache and none can alter it.
    ram = f"memory-backend-file,id=ram,size={memory_mb}M,mem-path={state / RAM},share=off"
    with _launched(lab, directory, ram, memory_mb, incoming=True) as launched:
        _converse(
            directory, lambda qmp: _load(qmp, directory, state / DEVICES, apart=True, sound=sound)
        )
        return _recorded(_described(lab, docker, launched, state=str(state)))


def thaw(lab: str, docker: str, moment: Path, state: str, *, memory_mb: int) -> Machine:
    """Start a machine out of what `freeze` kept of it. It came from `state` once."""
    directory = _own_directory(lab)
    for name in LAYERS:
        shutil.copyfile(moment / name, directory / name)
    ram = f"memory-backend-ram,id=ram,size={memory_mb}M"
    with _launched(lab, directory, ram, memory_mb, incoming=True) as launched:
        _converse(directory, lambda qmp: _load(qmp, directory, moment / WHOLE, apart=False))
        return _recorded(_described(lab, docker, launched, state=state))


def _own_directory(lab: str) -> Path:
    directory = lab_directory(lab)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


async def _load(
    client: QMPClient,
    directory: Path,
    saved: Path,
    *,
    apart: bool,
    sound: Callable[[], None] = lambda: None,
) -> None:
    """Give a QEMU that waits for it what was saved, and let it run when `sound` has returned."""
    looked = asyncio.create_task(asyncio.to_thread(sound))
    await _memory_apart(client, apart)
    await client.execute("migrate-incoming", {"uri": "unix:incoming.sock"})
    with socket.socket(socket.AF_UNIX) as stream, saved.open("rb") as file:
        stream.connect(_short(directory / "incoming.sock"))
        with contextlib.suppress(BrokenPipeError):  # QEMU tells why it wants no more
            await asyncio.to_thread(stream.sendfile, file)
    await _migrated(client)
    await looked
    await client.execute("cont")


@dataclass(frozen=True)
class _Launched:
    """A QEMU whose monitor answers."""

    directory: Path
    process: subprocess.Popen[bytes]
    accel: str


@contextlib.contextmanager
def _launched(
    lab: str, disks: Path, ram: str, memory_mb: int, *, incoming: bool = False
) -> Iterator[_Launched]:
    """Start QEMU in the lab's directory; it ends where the body fails."""
    directory = _own_directory(lab)
    verdict = accel.decide(machine.directory())
    process = _qemu(directory, disks, ram, memory_mb, verdict, incoming=incoming)
    try:
        deadline = time.monotonic() + 20
        while not (directory / "qmp.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise _qemu_failed(directory, "did not start")
            time.sleep(0.01)
        yield _Launched(directory, process, verdict.accel)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _described(lab: str, docker: str, launched: _Launched, *, state: str) -> Machine:
    ports = _published_ports(launched.directory)
    return Machine(
        lab=lab,
        docker=docker,
        accel=launched.accel,
        pid=launched.process.pid,
        port=ports[_API_PORT],
        relay=ports[_RELAY_PORT],
        tls=str(machine.directory() / "tls"),
        directory=str(launched.directory),
        state=state,
    )


def _recorded(guest: Machine) -> Machine:
    record = Path(guest.directory) / _RECORD
    unfinished = record.with_suffix(".unfinished")
    unfinished.write_text(machine.to_json(asdict(guest)))
    os.replace(unfinished, record)
    return guest


def processors() -> int:
    """Return how many processors a machine gets."""
    return min(_MOST_PROCESSORS, os.cpu_count() or 1)


def _qemu(
    directory: Path,
    disks: Path,
    ram: str,
    memory_mb: int,
    verdict: accel.Verdict,
    *,
    incoming: bool,
) -> subprocess.Popen[bytes]:
    base = machine.directory()
    forwards = ",".join(f"hostfwd=tcp:127.0.0.1:0-{_GUEST}:{p}" for p in (_API_PORT, _RELAY_PORT))
    argv = [
        bootstrap.tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35,memory-backend=ram", "-m", str(memory_mb), "-object", ram),
        *verdict.options,
        *("-smp", str(processors())),
        *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd")),
        *("-append", f"console=ttyS0 quiet panic=-1 {_KERNEL}"),
        *("-serial", "file:serial.log"),
        *("-netdev", f"user,id=net,restrict=on,net={_NETWORK},{forwards}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off"),
        *(("-incoming", "defer") if incoming else ()),
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]
    for disk in (disks / name for name in LAYERS):
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


def _qemu_failed(directory: Path, what: str) -> EngineError:
    told = (directory / "qemu.log").read_text(errors="replace").strip()[-500:]
    return EngineError(
        f"QEMU {what}: {told or 'it said nothing'}",
        hint="`labkit doctor` tells what this machine can run",
    )


def _published_ports(directory: Path) -> dict[int, int]:
    """Ask QEMU which ports of loopback it took, by the machine's: it chose free ones, with no race."""
    command = {"command-line": "info usernet"}
    told = _converse(directory, lambda client: client.execute("human-monitor-command", command))
    rows = re.findall(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)", str(told))
    ports = {int(theirs): int(ours) for ours, theirs in rows}
    if set(ports) != {_API_PORT, _RELAY_PORT}:
        raise EngineError(f"QEMU names no ports for the machine's engine: {told}")
    return ports


async def _memory_apart(client: QMPClient, apart: bool) -> None:
    """Say whether memory that lies in a file which others may map is left out of the stream."""
    capability = {"capability": "x-ignore-shared", "state": apart}
    await client.execute("migrate-set-capabilities", {"capabilities": [capability]})


async def _migrated(client: QMPClient) -> None:
    while True:
        told = await client.execute("query-migrate")
        assert isinstance(told, dict)
        if told.get("status") == "completed":
            return
        if told.get("status") == "failed":
            raise EngineError(f"QEMU could not carry the machine's state: {told.get('error-desc')}")
        await asyncio.sleep(0.01)


def settle(guest: Machine) -> None:
    """Wait until a machine has little left to do: what is saved busy goes on busy in every lab.

    A fresh swarm of three keeps two emulated processors busy for ten seconds (measured). One that does
    not come to rest in time is taken as it is.
    """
    import psutil

    process = psutil.Process(guest.pid)
    deadline = time.monotonic() + _SETTLE_SECONDS
    process.cpu_percent()
    while process.cpu_percent(interval=1.0) > _QUIET_PERCENT and time.monotonic() < deadline:
        pass


def save(guest: Machine, devices: Path) -> None:
    """End a booted machine and write the state of its devices; its memory and disks are in files."""
    directory = Path(guest.directory)

    async def stop(client: QMPClient) -> None:
        await _write(client, directory, devices, apart=True)
        # So that what the layers still have in memory gets into their files.
        await client.execute("quit")

    _converse(directory, stop)
    _wait_for_end(directory)


def freeze(guest: Machine, moment: Path) -> None:
    """Write down a whole machine, memory and layers, into a directory; it stands still meanwhile."""
    directory = Path(guest.directory)

    async def pause(client: QMPClient) -> None:
        try:
            await _write(client, directory, moment / WHOLE, apart=False)
            for name in LAYERS:
                await asyncio.to_thread(shutil.copyfile, directory / name, moment / name)
        finally:
            await client.execute("cont")

    _converse(directory, pause)


async def _write(client: QMPClient, directory: Path, target: Path, *, apart: bool) -> None:
    """Stop a machine and write its state; what its disks have to say is in their files afterwards."""
    outgoing = directory / "outgoing.sock"
    await client.execute("stop")
    await _memory_apart(client, apart)
    await client.execute("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    with socket.socket(socket.AF_UNIX) as listener, target.open("wb") as file:
        listener.bind(_short(outgoing))
        try:
            listener.listen(1)
            await client.execute("migrate", {"uri": f"unix:{outgoing.name}"})
            stream, _ = await asyncio.to_thread(listener.accept)
            with stream:
                while data := await asyncio.to_thread(stream.recv, _CHUNK):
                    await asyncio.to_thread(file.write, data)
        finally:
            outgoing.unlink()
    await _migrated(client)


def _converse(directory: Path, talk: Callable[[QMPClient], Awaitable[_Answer]]) -> _Answer:
    """Talk to the QEMU of a directory over QMP, with QEMU's own library."""
    from qemu.qmp import QMPClient, QMPError

    async def run() -> _Answer:
        client = QMPClient("labkit")
        # A unix socket's path has a limit of 108 bytes, a directory's has none.
        await client.connect(_short(directory / "qmp.sock"))
        try:
            return await talk(client)
        finally:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await client.disconnect()

    try:
        # A notebook's kernel runs an event loop already, and asyncio allows one a thread.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, run()).result()
    except (QMPError, EOFError, OSError) as problem:
        raise _qemu_failed(directory, f"refused ({problem})") from problem


def _short(socket: Path) -> str:
    relative = os.path.relpath(socket)
    return min(str(socket), relative, key=len)


class _EndedByItself(WaitTimeout):
    """A machine whose QEMU ended before its engine answered."""


def _wait_for_engine(guest: Machine, process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    client = guest.client(timeout=3)
    last, error = "no answer yet", WaitTimeout
    while time.monotonic() - began < _START_SECONDS:
        if process.poll() is not None:
            last, error = f"QEMU ended with code {process.returncode}", _EndedByItself
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
        log=_tail(Path(guest.directory) / "serial.log"),
        hint="`labkit doctor` tells what this machine can run; a busy machine needs another try",
    )


def last_words(lab: str) -> str | None:
    """Tell what a machine that has ended by itself said last; None where there is no such machine."""
    directory = lab_directory(lab)
    if find(lab) or not (directory / _RECORD).exists():
        return None
    words = _tail(directory / "serial.log") + _tail(directory / "qemu.log")
    return "\n".join(words) or "it said nothing"


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log.exists() else []


def remove(directory: Path) -> None:
    """End the machine of a directory, recorded or not, and remove the directory."""
    import psutil

    for process in _qemus_in(directory):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_end(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _wait_for_end(directory: Path) -> None:
    """Wait until no QEMU works in a directory."""
    deadline = time.monotonic() + 20
    while _qemus_in(directory) and time.monotonic() < deadline:
        time.sleep(0.02)


def _qemus_in(directory: Path) -> list[psutil.Process]:
    """List the QEMU processes that work in a directory: the record may be missing, they cannot hide."""
    import psutil

    return [process for process in psutil.process_iter() if _works_in(process, str(directory))]


def _works_in(process: psutil.Process, directory: str) -> bool:
    """Whether a process is the QEMU of a directory.

    That tells it from another program with its pid; its start time would not, for it is reckoned from a
    clock that is set now and then. One that was killed and not yet waited for has no directory.
    """
    import psutil

    try:
        return process.name().startswith("qemu-system") and process.cwd() == directory
    except psutil.Error:
        return False


def leftovers() -> list[str]:
    """List the labs that have a directory here, whether their machine runs or not."""
    return [path.name for path in paths.machines().glob("*") if path.is_dir()]


def lab_directory(lab: str) -> Path:
    """Return the directory of a lab's machine."""
    return paths.machines() / lab
