"""The sandbox: a kernel inside bubblewrap, so that a learner's code can be run.

What its code finds inside: this Python with the kit and the system's libraries, all read-only; one
folder of its own in memory, with the files that it was given, and a /tmp; no processes of others; no
network, not even between sandbox and host. Nothing of the host can be written. The labs, whose sources
have the solutions, are not there. Where root runs it, the code inside runs as nobody.

The kernel's sockets lie in that folder too. The host reaches them through /proc/PID/root, so not even a
directory for them has to be shared. Of Linux's system calls, what a kernel needs is let through
(`seccomp`). Time, memory, processes, files and sizes are limited: what one process may take, by limits
of Linux that the code cannot raise; what all of it takes, by a thread that looks four times a second
and kills the sandbox (`monitor`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode

from labkit import paths
from labkit.files import scratch
from labkit.grading import seccomp
from labkit.grading.monitor import HOME, Limits, Monitor
from labkit.grading.seccomp import SandboxError

__all__ = ["HOME", "Limits", "Monitor", "SandboxError", "SandboxProvisioner", "refusal", "require"]

_SOCKETS = HOME / ".kernel"  # a directory, so that learners do not see them
_PASSWD = b"learner:x:1000:1000:learner:/home/learner:/bin/sh\n"
_NOBODY = "65534"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_APPARMOR_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
# Descriptions of the grader's keys; their contents are a system call away, which the filter refuses.
_HIDDEN = [path for path in ("/proc/keys", "/proc/key-users") if os.path.exists(path)]
_PACKAGE = Path(__file__).resolve().parent.parent

_log = logging.getLogger(__name__)


def refusal(limits: Limits | None = None) -> str:
    """Say why no sandbox can be had on this machine; empty where it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (`bwrap`) is not installed"
    try:
        command = _Command({}, limits or Limits(), {})
    except SandboxError as problem:
        return str(problem.args[0])
    argv = [*command.argv, "--", "true"]
    with contextlib.closing(command):
        done = subprocess.run(
            argv, capture_output=True, text=True, pass_fds=command.fds, env={"PATH": _PATH}, timeout=30
        )
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if _apparmor_forbids():
        return f"AppArmor keeps bubblewrap from making user namespaces: {last}"
    return f"bubblewrap does not work here (0.8 or later is needed): {last}"


def remedy() -> str:
    """Name the next step on a machine where no sandbox can be had."""
    if shutil.which("bwrap") is not None and _apparmor_forbids():
        return (
            "allow it to bubblewrap alone: a profile with `userns,` in /etc/apparmor.d/bwrap "
            "(docs/troubleshooting.md has it, ready to paste)"
        )
    return "sudo apt-get install bubblewrap (docs/troubleshooting.md: where it is forbidden)"


def _apparmor_forbids() -> bool:
    """Whether programs without a profile may make no user namespaces, as on Ubuntu since 24.04."""
    with contextlib.suppress(OSError):
        return _APPARMOR_SWITCH.read_text().strip() == "1"
    return False


def require() -> None:
    """Raise SandboxError where no sandbox can be had."""
    if why := refusal():
        raise SandboxError(
            f"submissions cannot be shut in: {why}",
            hint=f"{remedy()}; or --unsafe, which runs strangers' code with all your rights",
        )


def die_with(parent: int) -> Callable[[], None]:
    """Return what a child runs before its program: it is killed when its parent, this process, ends.

    bubblewrap asks for the same a moment after it has begun; a parent that is killed in that moment
    would leave it behind (Linux, prctl(2), PR_SET_PDEATHSIG).
    """
    prctl = ctypes.CDLL(None).prctl  # found here: between fork and exec there may be no allocation

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return tie


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
        kwargs["preexec_fn"] = die_with(os.getpid())
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
        """End whatever is left in it, stop watching, and remove what it was made of."""
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
    inside only. Raises SandboxError for a processor without a system-call filter.
    """

    def __init__(
        self,
        files: Mapping[Path, Path],
        limits: Limits,
        environment: Mapping[str, str],
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        system_calls = seccomp.program()
        self.fds: list[int] = []
        self._left = contextlib.ExitStack()
        self._stage = str(self._left.enter_context(scratch())) if os.geteuid() == 0 else ""
        self._staged: list[str] = []
        temporary = limits.folder // 8  # of what it may write, what may lie in /tmp
        empty: list[Path] = []
        self.argv = [
            *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000"),
            *("--gid", "1000", "--die-with-parent", "--new-session", "--hostname", "labkit"),
            # The folder /tmp comes before the kit, which may lie in there.
            *("--clearenv", "--size", str(temporary), "--tmpfs", "/tmp"),
        ]
        for path, shown in _host_paths():
            if shown:
                self._show({path: path})
            else:
                self.argv += ["--tmpfs", str(path)]
                empty.append(path)
        self.argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        self.argv += ["--size", str(limits.folder - temporary), "--tmpfs", str(HOME)]
        self.argv += ["--dir", str(_SOCKETS)]
        self._show({**files, **_font_lists()})
        for hidden in _HIDDEN:
            self.argv += ["--ro-bind", "/dev/null", hidden]
        for inside, content in {"/etc/passwd": _PASSWD, **(contents or {})}.items():
            self.argv += ["--ro-bind-data", self._open(content), inside]
        self.argv += ["--seccomp", self._open(system_calls)]
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
        self._left.close()  # what is mounted there exists in the sandbox alone

    def _open(self, content: bytes) -> str:
        """Return the number of an open file with a content, which bubblewrap reads and closes."""
        fd = os.memfd_create("labkit")
        self.fds.append(fd)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        return str(fd)

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
