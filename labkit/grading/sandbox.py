"""The sandbox ("cage" in the manual): a kernel inside bubblewrap, so that a learner's code can be run.

What its code finds inside: this Python with the kit and the system's libraries, all read-only; one
folder of its own in memory, with the files that it was given, and a /tmp; no processes of others; no
network, not even between sandbox and host. Nothing of the host can be written. The labs, whose sources
have the solutions, are not there. Where root runs it, the code inside runs as nobody.

The kernel's sockets lie in that folder too. The host reaches them through /proc/PID/root, so not even a
directory for them has to be shared. Time, memory, processes, files and sizes are limited: what one
process may take, by limits of Linux that the code cannot raise; what all of it takes, by a thread that
looks four times a second and kills the sandbox.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import site
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
_CHECK_EVERY_S = 0.25
_MAX_ATTEMPTS = 60
_PACKAGE = Path(__file__).resolve().parent.parent

_log = logging.getLogger(__name__)


class SandboxError(LabkitError):
    """No sandbox can be had on this machine."""

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

    def per_process(self) -> dict[str, int]:
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
    """Say why no sandbox can be had on this machine; empty where it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (`bwrap`) is not installed"
    command = _Command({}, limits or Limits(), {})
    argv = [*command.argv, "--", "true"]
    with contextlib.closing(command):
        done = subprocess.run(
            argv, capture_output=True, text=True, pass_fds=command.fds, env={"PATH": _PATH}, timeout=30
        )
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"bubblewrap does not work here (0.8 or later is needed): {last}"


def require() -> None:
    """Raise SandboxError where no sandbox can be had."""
    if why := refusal():
        raise SandboxError(
            f"submissions cannot be shut in: {why}",
            hint="sudo apt-get install bubblewrap (docs/troubleshooting.md: where it is forbidden); or "
            "--unsafe, which runs strangers' code with all your rights",
        )


class Monitor(threading.Thread):
    """Watches what a sandbox uses, and kills it where that is too much; reads its witness's reports.

    ``pid`` is the first process inside, as the host counts; ``reports`` a pipe that does not block, to
    which `sandbox_main` writes.
    """

    def __init__(self, pid: int, reports: int, limits: Limits) -> None:
        super().__init__(daemon=True, name="sandbox-monitor")
        self.killed_because = ""
        """What it took too much of; empty where it was not killed for that."""
        self.attempts: list[str] = []
        """What its code tried that has no place in an answer."""
        self.cpu_seconds = 0.0
        """Processor time that its processes took."""
        self._pid, self._reports, self._limits = pid, reports, limits
        self._over = threading.Event()
        self._unread = b""

    def run(self) -> None:
        """Watch until the sandbox is gone."""
        while not self._over.wait(_CHECK_EVERY_S):
            self._read_reports()
            self._check_limits()
        self._read_reports()
        os.close(self._reports)

    def stop(self) -> None:
        """Stop watching; the attempts are complete then."""
        self._over.set()
        self.join()

    def _kill(self, why: str) -> None:
        """Kill all that is in the sandbox, for a reason."""
        _log.info("killing sandbox %s: it took %s", self._pid, why)
        self.killed_because = self.killed_because or why
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # the first process in there: the others die with it

    def _check_limits(self) -> None:
        limits = self._limits
        used, count, cpu = 0, 0, 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    used += process.memory_info().rss
                    cpu += sum(process.cpu_times()[:4])
                    count += 1
        self.cpu_seconds = max(self.cpu_seconds, cpu)
        if count > limits.processes:
            self._kill(f"more than {limits.processes} processes")
        elif used > limits.memory:
            self._kill(f"more than {limits.memory / 2**30:g} GiB of memory")
        with contextlib.suppress(OSError):
            written = [os.statvfs(f"/proc/{self._pid}/root{folder}") for folder in (HOME, "/tmp")]
            if sum(folder.f_files - folder.f_ffree for folder in written) > limits.files:
                self._kill(f"more than {limits.files} files")

    def _read_reports(self) -> None:
        """Note what the witness reports; it may be the learner's code that writes there."""
        with contextlib.suppress(OSError):
            self._unread += os.read(self._reports, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        self._unread = self._unread[-4096:]
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                sentence = json.loads(line)
                is_new = isinstance(sentence, str) and sentence not in self.attempts
                if is_new and len(self.attempts) < _MAX_ATTEMPTS:
                    self.attempts.append(sentence[:300])


class SandboxProvisioner(LocalProvisioner):
    """Starts a kernel in a sandbox; the files of its working directory are put into its folder.

    Any program that uses jupyter_client can ask for it: a kernel spec names it `labkit-cage`.
    """

    limits = Limits()
    learner = Unicode("", config=True, help="Whose submission it is: LABKIT_LEARNER in the sandbox.")
    monitor: Monitor | None = None
    _inside: int | None = None  # the first process inside, as the host counts
    _command: _Command | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Ask for sockets in files before the connection is made."""
        manager: Any = self.parent
        manager.transport, manager.ip = "ipc", str(_SOCKETS / "k")
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel in the sandbox; returns how it is reached from outside.

        Raises SandboxError where bubblewrap ends before the kernel begins.
        """
        folder = Path(kwargs.pop("cwd", None) or Path.cwd())
        variables = kwargs.pop("env", None) or {}
        reports, reports_inside = os.pipe()
        info, info_inside = os.pipe()
        os.set_blocking(reports, False)
        self._command = self._prepare(folder, variables)
        argv = [
            *(*self._command.argv, "--info-fd", str(info_inside), "--"),
            *(sys.executable, "-m", "labkit.grading.sandbox_main"),
            *(json.dumps(self.limits.per_process()), str(reports_inside)),
            *("-f", _CONNECTION_FILE, *_KERNEL_OPTIONS),
        ]
        _log.debug("starting %s", argv)
        kwargs |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        kwargs["pass_fds"] = [*self._command.fds, reports_inside, info_inside]
        await super().launch_kernel(argv, env={"PATH": _PATH}, cwd="/", **kwargs)
        os.close(reports_inside)
        os.close(info_inside)
        with os.fdopen(info) as file:
            text = file.read()
        if not text:
            os.close(reports)
            raise SandboxError("bubblewrap ended before the kernel began", hint="labkit doctor")
        self._inside = int(json.loads(text)["child-pid"])
        self.monitor = Monitor(self._inside, reports, self.limits)
        self.monitor.start()
        outside = f"/proc/{self._inside}/root{_SOCKETS}/k"
        self.connection_info = {**self.connection_info, "ip": outside}
        return self.connection_info

    def _prepare(self, folder: Path, variables: Mapping[str, str]) -> _Command:
        """Put together bubblewrap's command for the files of a folder."""
        files = {
            p: HOME / p.name for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink()
        }
        connection: dict[str, Any] = {**self.connection_info, "ip": str(_SOCKETS / "k")}
        connection["key"] = connection["key"].decode()
        environment = {k: v for k, v in variables.items() if k in _PASSED}
        if self.learner:
            environment["LABKIT_LEARNER"] = self.learner
        contents = {_CONNECTION_FILE: json.dumps(connection).encode()}
        return _Command(files, self.limits, environment, contents)

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel itself; any other signal is for the sandbox."""
        if signum != signal.SIGINT:
            await super().send_signal(signum)
        elif self._inside is not None:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                psutil.Process(self._inside).children()[0].send_signal(signum)

    async def cleanup(self, restart: bool = False) -> None:
        """Stop watching what is gone, and remove what it was made of."""
        if self.monitor is not None:
            self.monitor.stop()
        if self._command is not None:
            self._command.close()
            self._command = None
        await super().cleanup(restart)


_CONNECTION_FILE = f"{HOME}/.kernel.json"
_KERNEL_OPTIONS = ("--HistoryManager.hist_file=:memory:", "--IPKernelApp.log_level=ERROR")
_PATH = "/usr/local/bin:/usr/bin:/bin"
_PASSED = {"LABKIT_LEARNER", "LABKIT_REPLAY", "NBGRADER_EXECUTION"}


# Nobody may not enter the directories where some of it lies, as /root: root mounts that where nobody
# may, in a mount namespace of its own, and no process stays behind between grader and sandbox.
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
    """bubblewrap's command up to the program that runs inside, and the open files that it names.

    ``files`` are shown inside read-only, host path to path inside; ``contents`` are files that exist
    inside only.
    """

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
        size = ["--size", str(limits.folder)]
        empty: list[Path] = []
        self.argv = [
            *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000"),
            *("--gid", "1000", "--die-with-parent", "--new-session", "--hostname", "labkit"),
            # The folder /tmp comes before the kit, which may lie in there.
            *("--clearenv", *size, "--tmpfs", "/tmp"),
        ]
        for path, shown in _host_paths():
            if shown:
                self._show({path: path})
            else:
                self.argv += ["--tmpfs", str(path)]
                empty.append(path)
        self.argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        self.argv += [*size, "--tmpfs", str(HOME), "--dir", str(_SOCKETS)]
        self._show({**files, **_font_lists()})
        for inside, content in {"/etc/passwd": _PASSWD, **(contents or {})}.items():
            self.fds.append(os.memfd_create("labkit"))
            os.write(self.fds[-1], content)
            os.lseek(self.fds[-1], 0, os.SEEK_SET)
            self.argv += ["--ro-bind-data", str(self.fds[-1]), inside]
        for path in (*empty, Path("/")):
            self.argv += ["--remount-ro", str(path)]
        self.argv += ["--chdir", str(HOME)]
        for name, value in {**_environment(), **environment}.items():
            self.argv += ["--setenv", name, value]
        if self._stage:  # limits on processes do not hold for root, so root becomes nobody first
            ids = ["--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--inh-caps=-all"]
            unshare = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _STAGE]
            self.argv = [*unshare, self._stage, *self._staged, "", "setpriv", *ids, "--", *self.argv]

    def close(self) -> None:
        """Close and remove what it was made of, when the sandbox is gone."""
        for fd in self.fds:
            os.close(fd)
        if self._stage:
            os.rmdir(self._stage)  # what is mounted there exists in the sandbox alone

    def _show(self, places: Mapping[Path, Path]) -> None:
        """Show files and directories of the host, or links, inside, read-only."""
        for host, inside in places.items():
            if host.is_symlink():
                self.argv += ["--symlink", os.readlink(host), str(inside)]
            elif self._stage:
                self._staged.append(str(host))
                self.argv += ["--ro-bind", f"{self._stage}/{len(self._staged)}", str(inside)]
            else:
                self.argv += ["--ro-bind", str(host), str(inside)]


def _environment() -> dict[str, str]:
    variables = {
        "PATH": f"{sys.prefix}/bin:{_PATH}",
        "HOME": str(HOME),
        "USER": "learner",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        # One thread each: a class is graded on all cores, and threads count as processes.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    # Where Python finds the kit by itself, its folder must not come before the standard library.
    if _PACKAGE.parent not in {Path(folder).resolve() for folder in site.getsitepackages()}:
        variables["PYTHONPATH"] = str(_PACKAGE.parent)
    return variables


def _host_paths() -> list[tuple[Path, bool]]:
    """Return the host's paths that are shown inside (True) or empty there (False), parents first.

    Shown are the system's programs and libraries, this Python, and the kit with its Compose files.
    Empty is what has the solutions and lies in what is shown: the labs of a wheel, which are in its
    package, and a checkout, with its history, in an environment's `src`, for example.
    """
    system = [Path("/", name) for name in ("usr", "bin", "lib", "lib32", "lib64", "sbin")]
    etc = [Path("/etc", name) for name in ("alternatives", "fonts", "ld.so.cache")]
    own = [Path(sys.base_prefix), Path(sys.prefix), _PACKAGE, paths.COMPOSE]
    user_site = Path(site.getusersitepackages()).resolve()
    if _PACKAGE.parent == user_site:  # what the kit needs lies there too
        own.append(user_site)
    states = dict.fromkeys(_solutions(), False)
    states |= dict.fromkeys([*system, *etc, *(path.resolve() for path in own)], True)
    found: dict[Path, bool] = {}
    for path, shown in sorted(states.items(), key=lambda item: len(item[0].parts)):
        above = next((found[parent] for parent in path.parents if parent in found), False)
        if shown != above and path.exists():
            found[path] = shown
    return list(found.items())


def _solutions() -> list[Path]:
    """Return where the labs' solutions lie on this machine: the labs, and all of a checkout."""
    return [path.resolve() for path in (paths.LABS, paths.CHECKOUT) if path]


def _font_lists() -> dict[Path, Path]:
    """Return what matplotlib knows of this machine's fonts: it would search them for seconds."""
    import matplotlib

    known = Path(matplotlib.get_cachedir()).glob("fontlist-*.json")
    return {path: HOME / ".cache" / "matplotlib" / path.name for path in known}
