"""The cage: a kernel that is shut in by bubblewrap, so that a stranger's code can be run.

What its code finds inside: this Python with the kit and the system's libraries, all read-only; one
folder of its own in memory, with the files that it was given, and a /tmp; nobody else's processes; no
network, not even between cage and host. Nothing of the host can be written. Where root runs it, the
code inside is nobody's.

The kernel's sockets lie in that folder too. The host reaches them through /proc/PID/root, so not even a
directory for them has to be shared. Time, memory, processes, files and sizes are limited: what one
process may take, by limits of the kernel that the code cannot raise; what all of it takes, by a thread
that looks four times a second and kills the cage.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode

from labkit import paths
from labkit.errors import LabkitError

HOME = Path("/home/learner")
_SOCKETS = HOME / ".kernel"  # a directory, so that learners do not see them
_PASSWD = b"learner:x:1000:1000:learner:/home/learner:/bin/sh\n"
_NOBODY = "65534"
_LOOK_EVERY_S = 0.25


class CageError(LabkitError):
    """Submissions cannot be shut in on this machine."""

    exit_code = 3


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    cell_seconds: float = 30  # of the processor, and three times that by the clock
    notebook_seconds: float = 300  # by the clock
    memory: int = 2 * 2**30  # bytes, of all its processes together
    processes: int = 32
    folder: int = 64 * 2**20  # bytes, of everything that it writes
    files: int = 2000  # in its folder

    def of_a_process(self) -> dict[str, int]:
        """Return what one process may take, by the names of the module `resource`."""
        return {
            "AS": 2 * self.memory,  # addresses: libraries and threads reserve more than they use
            "CORE": 0,
            "CPU": int(self.notebook_seconds) + 30,
            "FSIZE": self.folder,
            "NOFILE": 256,
            "NPROC": 4 * self.processes,  # threads count as well
        }


def refusal(limits: Limits | None = None) -> str:
    """Say why no cage can be had on this machine; empty where it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (`bwrap`) is not installed"
    command = _Command({}, limits or Limits(), {})
    line = [*command.words, "--", "true"]
    with contextlib.closing(command):
        done = subprocess.run(
            line, capture_output=True, text=True, pass_fds=command.fds, env={"PATH": _PATH}, timeout=30
        )
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"bubblewrap does not work here (0.8 or later is needed): {said}"


def require() -> None:
    """Raise CageError where no cage can be had."""
    if why := refusal():
        raise CageError(
            f"submissions cannot be shut in: {why}",
            hint="sudo apt-get install bubblewrap (docs/troubleshooting.md: where it is forbidden); or "
            "--unsafe, which runs strangers' code with all your rights",
        )


class Watch(threading.Thread):
    """Looks at what a cage uses and hears its witness; kills it where it goes too far."""

    def __init__(self, pid: int, witness: int, limits: Limits) -> None:
        super().__init__(daemon=True, name="cage-watch")
        self.killed = ""
        """Why the cage was killed; empty where it was not."""
        self.told: list[str] = []
        """What its code tried."""
        self.cpu = 0.0
        """Processor time that its processes took, in seconds."""
        self._pid, self._witness, self._limits = pid, witness, limits
        self._over = threading.Event()
        self._rest = b""

    def run(self) -> None:
        """Look until the cage is gone."""
        while not self._over.wait(_LOOK_EVERY_S):
            self._hear()
            self._look()
        self._hear()
        os.close(self._witness)

    def stop(self) -> None:
        """Stop looking; what was told is complete then."""
        self._over.set()
        self.join()

    def kill(self, why: str) -> None:
        """Kill all that is in the cage, for a reason."""
        self.killed = self.killed or why
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # the first process in there: the others die with it

    def _look(self) -> None:
        limits = self._limits
        used, count, cpu = 0, 0, 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    used += process.memory_info().rss
                    cpu += sum(process.cpu_times()[:4])
                    count += 1
        self.cpu = max(self.cpu, cpu)
        if count > limits.processes:
            self.kill(f"more than {limits.processes} processes")
        elif used > limits.memory:
            self.kill(f"more than {limits.memory / 2**30:g} GiB of memory")
        with contextlib.suppress(OSError):
            written = [os.statvfs(f"/proc/{self._pid}/root{folder}") for folder in (HOME, "/tmp")]
            if sum(folder.f_files - folder.f_ffree for folder in written) > limits.files:
                self.kill(f"more than {limits.files} files")

    def _hear(self) -> None:
        """Take down what the witness told; it may be the learner's code that speaks."""
        with contextlib.suppress(OSError):
            self._rest += os.read(self._witness, 65536)
        *lines, self._rest = self._rest.split(b"\n")
        self._rest = self._rest[-4096:]
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                sentence = json.loads(line)
                if isinstance(sentence, str) and len(self.told) < 60 and sentence not in self.told:
                    self.told.append(sentence[:300])


class CageProvisioner(LocalProvisioner):
    """Starts a kernel in a cage; the files of its working directory are put into its folder.

    Any program that uses jupyter_client can ask for it: a kernel spec names it `labkit-cage`.
    """

    limits = Limits()
    learner = Unicode("", config=True, help="Whose submission it is: LABKIT_LEARNER in the cage.")
    watch: Watch | None = None
    _inside: int | None = None
    _command: _Command | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Ask for sockets in files before the connection is made."""
        manager: Any = self.parent
        manager.transport, manager.ip = "ipc", str(_SOCKETS / "k")
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel in the cage; returns how it is reached from outside."""
        folder = Path(kwargs.pop("cwd", None) or Path.cwd())
        given = kwargs.pop("env", None) or {}
        files = {
            p: HOME / p.name for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink()
        }
        connection: dict[str, Any] = {**self.connection_info, "ip": str(_SOCKETS / "k")}
        connection["key"] = connection["key"].decode()
        hears, tells = os.pipe()
        told, tell = os.pipe()
        os.set_blocking(hears, False)
        environment = {k: v for k, v in given.items() if k in _PASSED}
        if self.learner:
            environment["LABKIT_LEARNER"] = self.learner
        details = {f"{HOME}/.kernel.json": json.dumps(connection).encode()}
        self._command = _Command(files, self.limits, environment, details)
        line = [
            *(*self._command.words, "--info-fd", str(tell), "--"),
            *(
                sys.executable,
                "-m",
                "labkit.grading.sandbox_main",
                json.dumps(self.limits.of_a_process()),
            ),
            *(str(tells), "-f", f"{HOME}/.kernel.json", *_ARGUMENTS),
        ]
        kwargs |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        kwargs["pass_fds"] = [*self._command.fds, tells, tell]
        await super().launch_kernel(line, env={"PATH": _PATH}, cwd="/", **kwargs)
        os.close(tells)
        os.close(tell)
        with os.fdopen(told) as file:
            text = file.read()
        if not text:
            os.close(hears)
            raise CageError("bubblewrap ended before the kernel began", hint="labkit doctor")
        self._inside = int(json.loads(text)["child-pid"])
        self.watch = Watch(self._inside, hears, self.limits)
        self.watch.start()
        outside = f"/proc/{self._inside}/root{_SOCKETS}/k"
        self.connection_info = {**self.connection_info, "ip": outside}
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel itself; any other signal is for the cage."""
        if signum != signal.SIGINT:
            await super().send_signal(signum)
        elif self._inside is not None:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                psutil.Process(self._inside).children()[0].send_signal(signum)

    async def cleanup(self, restart: bool = False) -> None:
        """Stop looking at what is gone, and put away what it was made of."""
        if self.watch is not None:
            self.watch.stop()
        if self._command is not None:
            self._command.close()
            self._command = None
        await super().cleanup(restart)


_ARGUMENTS = ("--HistoryManager.hist_file=:memory:", "--IPKernelApp.log_level=ERROR")
_PATH = "/usr/local/bin:/usr/bin:/bin"
_PASSED = {"LABKIT_LEARNER", "LABKIT_REPLAY", "NBGRADER_EXECUTION"}


# Nobody may not go to where some of it lies (/root, say): root mounts that where nobody may, in a mount
# namespace of its own, and no process stays behind between the grader and the cage.
_STAGE = """\
set -e
mount -t tmpfs -o mode=755 labkit "$0"
n=0
while [ -n "$1" ]; do
    n=$((n + 1))
    if [ -d "$1" ]; then mkdir "$0/$n"; else : > "$0/$n"; fi
    mount --bind "$1" "$0/$n"
    shift
done
shift
exec "$@"
"""


class _Command:
    """The words of bubblewrap up to the program to be shut in, and the open files that they name."""

    def __init__(
        self,
        files: Mapping[Path, Path],
        limits: Limits,
        environment: Mapping[str, str],
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        self.fds: list[int] = []
        self._stage = tempfile.mkdtemp(prefix="labkit-") if os.geteuid() == 0 else ""
        self._staged: list[str] = []
        size = str(limits.folder)
        self.words = [
            *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000"),
            *("--gid", "1000", "--die-with-parent", "--new-session", "--hostname", "labkit"),
            *(
                "--clearenv",
                "--size",
                size,
                "--tmpfs",
                "/tmp",
            ),  # before the kit, which may lie in there
        ]
        self._show(_system())
        self.words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        self.words += ["--size", size, "--tmpfs", str(HOME), "--dir", str(_SOCKETS)]
        self._show({**files, **_font_lists()})
        for inside, content in {"/etc/passwd": _PASSWD, **(contents or {})}.items():
            self.fds.append(os.memfd_create("labkit"))
            os.write(self.fds[-1], content)
            os.lseek(self.fds[-1], 0, os.SEEK_SET)
            self.words += ["--ro-bind-data", str(self.fds[-1]), inside]
        self.words += ["--remount-ro", "/", "--chdir", str(HOME)]
        for name, value in {**_environment(), **environment}.items():
            self.words += ["--setenv", name, value]
        if self._stage:  # limits on processes do not hold for root, so root becomes nobody first
            ids = ["--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--inh-caps=-all"]
            unshare = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _STAGE]
            self.words = [*unshare, self._stage, *self._staged, "", "setpriv", *ids, "--", *self.words]

    def close(self) -> None:
        """Put away the files, when the cage is gone."""
        for fd in self.fds:
            os.close(fd)
        if self._stage:
            os.rmdir(self._stage)  # what is mounted there is seen by the cage alone

    def _show(self, places: Mapping[Path, Path]) -> None:
        """Put files and directories of the host, or links, where they are seen inside, read-only."""
        for host, inside in places.items():
            if host.is_symlink():
                self.words += ["--symlink", os.readlink(host), str(inside)]
            elif self._stage:
                self._staged.append(str(host))
                self.words += ["--ro-bind", f"{self._stage}/{len(self._staged)}", str(inside)]
            else:
                self.words += ["--ro-bind", str(host), str(inside)]


def _environment() -> dict[str, str]:
    here = str(paths.REPOSITORY)
    return {
        "PATH": f"{sys.prefix}/bin:{_PATH}",
        "HOME": str(HOME),
        "USER": "learner",
        "LANG": "C.UTF-8",
        "PYTHONPATH": here,
        "PYTHONDONTWRITEBYTECODE": "1",
        # One thread each: a class is graded on all cores, and threads count as processes.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _system() -> dict[Path, Path]:
    """Return what is read-only: the system's programs and libraries, this Python, and the kit."""
    roots = [Path("/", name) for name in ("usr", "bin", "lib", "lib32", "lib64", "sbin")]
    etc = [Path("/etc", name) for name in ("alternatives", "fonts", "ld.so.cache")]
    python = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()]
    kit = [paths.REPOSITORY / "labkit", paths.COMPOSE]  # not the labs: their source has the solutions
    own = [path for path in (*python, *kit) if not path.is_relative_to("/usr")]
    return {path: path for path in (*roots, *etc, *own) if path.exists()}


def _font_lists() -> dict[Path, Path]:
    """Lend the cage what matplotlib knows of this machine's fonts: it would search them for seconds."""
    import matplotlib

    known = Path(matplotlib.get_cachedir()).glob("fontlist-*.json")
    return {path: HOME / ".cache" / "matplotlib" / path.name for path in known}
