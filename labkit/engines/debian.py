"""Builds root file systems from Debian packages, with no registry and no Docker: `mmdebstrap`.

Runs as an ordinary user too (in a user namespace of its own). Each result is a tar file, named by a key
that is made of everything that went into it; a file under its name is whole, because it got the name
last.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import files, paths
from labkit.engines import versions
from labkit.engines.base import key_of
from labkit.engines.repository import Repository
from labkit.errors import BuildError
from labkit.progress import Progress, Step

if TYPE_CHECKING:
    import psutil

log = logging.getLogger(__name__)

APP_SUITE = "trixie"
VARIANT = "minbase"
"""What mmdebstrap puts into a root file system beside the packages that are named."""

# command -> the Debian package it comes in
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "newuidmap": "uidmap",
}
RUN_TOOLS = ("qemu-system-x86_64", "qemu-img")
"""What running needs; the others are for building, and an imported machine is built already."""

# Ordinary users on Debian have no sbin in their PATH, yet mke2fs lives there and needs no root.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

_TRIMMED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_KEPT_LINES, _SHOWN_LINES = 60, 12  # of what mmdebstrap said last
_END_SECONDS = 10.0  # for a process to be gone after it was killed
NEEDED_BYTES = 4_000_000_000
_RECIPE = "2"  # raise it when this file comes to make other images of the same inputs


def tool(name: str) -> str:
    """Find a program that a Debian package brings; raises BuildError with the way to have it."""
    found = shutil.which(name, path=SEARCH_PATH)
    if not found:
        raise tools_error([name])
    return found


def missing_tools(names: Iterable[str] = TOOLS) -> list[str]:
    """List those of the programs that this machine lacks."""
    return [name for name in names if not shutil.which(name, path=SEARCH_PATH)]


def missing_packages() -> list[str]:
    """List the Debian packages that building and running the machine needs and that lack here."""
    return sorted({TOOLS[name] for name in missing_tools()})


def tools_error(missing: Sequence[str]) -> BuildError:
    """Return the error for programs that are missing, with the way to go on for this kind of system."""
    import_it = (
        "labkit vm import FILE, with what `labkit vm export` wrote on a Debian or Ubuntu machine"
    )
    running = [name for name in missing if name in RUN_TOOLS]
    if shutil.which("apt-get"):
        hint = install_command(sorted({TOOLS[name] for name in missing}))
        if not running:
            hint += f"; or, without building anything here: {import_it}"
    elif running:
        hint = (
            f"install QEMU ({', '.join(RUN_TOOLS)}) with this system's package manager, then: "
            f"{import_it}; or use a Docker engine: labkit up --engine docker"
        )
    else:
        hint = f"{import_it}; or use a Docker engine: labkit up --engine docker"
    programs = ", ".join(missing)
    return BuildError(f"the embedded machine needs programs that are not here: {programs}", hint=hint)


def install_command(packages: Sequence[str]) -> str:
    """Return the one command that needs root."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def listed(file: Path) -> list[str]:
    """Read a list of one name a line, with # comments."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def mirror() -> str | None:
    """Return the Debian mirror that this machine's own apt uses, or None (mmdebstrap has a default).

    A learner's machine may reach one mirror only, and the one it was set up with is the best guess.
    """
    wanted = os.environ.get("LABKIT_MIRROR")
    if wanted:
        return wanted
    if not shutil.which("apt-get"):
        return None
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listing.splitlines():
        uri, origin, label, component = line.split("|")
        if origin == "Debian" and label == "Debian" and component == "main":
            return uri.rstrip("/")
    return None


@contextmanager
def build_lock() -> Iterator[None]:
    """Let one process at a time build in the cache; a second waits and then finds the work done."""
    paths.cache().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (paths.cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_leftovers()
        yield


def sweep() -> None:
    """Remove what killed builds have left; where somebody builds, that process has done it."""
    if not paths.cache().is_dir():
        return
    with (paths.cache() / "build.lock").open("w") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_leftovers()


def _remove_leftovers() -> None:
    """End what killed builds still run, and remove what they have left. Call it under the lock."""
    import psutil

    files.remove_leftovers(paths.cache())
    left = [*paths.cache().glob("unfinished-*"), *_spacious_tmp.left()]
    for path in left:
        for process in _at_work_in(path):
            log.info("%d (%s) is left of a killed build, and is ended", process.pid, process.name())
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(_END_SECONDS)
        _unmount_below(path)
        _remove_tree(path)


def _at_work_in(path: Path) -> list[psutil.Process]:
    """List the processes whose directory or temporary directory a path is, or is above."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            places = (process.cwd(), process.environ().get("TMPDIR", ""))
            if any(Path(place).is_relative_to(path) for place in places if place):
                found.append(process)
    return found


def _unmount_below(path: Path) -> None:
    """Unmount what a bootstrap that had to be killed has left mounted: /proc, /sys and /dev."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", place], capture_output=True, check=True)


def _remove_tree(path: Path) -> None:
    """Remove a file or directory; what an ordinary user built belongs to the ids of a namespace."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists() and os.geteuid():
        argv = ["unshare", "--map-root-user", "--map-auto", "--", "rm", "-rf", str(path)]
        subprocess.run(argv, capture_output=True, check=True)


def make_tar(
    target: Path,
    *,
    suite: str,
    packages: Sequence[str],
    hooks: Sequence[str],
    progress: Progress,
    title: str,
    repository: Repository | None = None,
) -> Path:
    """Make a root file system as a tar at `target`; one that is already there is taken.

    `hooks` are mmdebstrap customize hooks. Some of the packages may come from a repository beside
    Debian's. Raises BuildError with the tool's last lines, RepositoryRefused.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    demand_space(target.parent)
    unfinished = target.with_name(f"unfinished-{target.name}")
    with (
        progress.stage(title) as step,
        _spacious_tmp() as environment,
        _before_apt(repository) as before,
    ):
        argv = _mmdebstrap(unfinished, suite, packages, [*before, *_customize(hooks)])
        try:
            code, last = _run(argv, environment, step)
            if code and repository and (refused := repository.refusal(last)):
                raise refused
            if code:
                raise failed(f"making the root file system of {title!r}", last, target.parent)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


@contextmanager
def _before_apt(repository: Repository | None) -> Iterator[list[str]]:
    """Give the hooks that put a repository, and which one wins, where apt finds them at its start."""
    if repository is None:
        yield []
        return
    texts = {
        "/etc/apt/sources.list.d/engine.sources": repository.sources(),
        "/etc/apt/preferences.d/engine": repository.preferences(),
    }
    with files.scratch() as folder:
        hooks = []
        for number, (place, text) in enumerate(texts.items()):
            file = folder / str(number)
            file.write_text(text, encoding="utf-8")
            hooks.append(f"--setup-hook={_upload(file, place)}")
        yield hooks


def _customize(hooks: Sequence[str]) -> list[str]:
    return [f"--customize-hook={hook}" for hook in hooks]


def _mmdebstrap(out: Path, suite: str, packages: Sequence[str], hooks: Sequence[str]) -> list[str]:
    argv = [tool("mmdebstrap"), f"--variant={VARIANT}", f"--include={','.join(packages)}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _TRIMMED]
    argv += [
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        # A mirror that is behind must not stop a lesson; signatures are still checked.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        # An ordinary user may not make device nodes; a container and the machine get theirs at start.
        "--skip=output/dev",
        "--verbose",
    ]
    argv += [*hooks, "--format=tar", suite, str(out)]
    if site := mirror():
        argv.append(site)
    return argv


def _run(argv: Sequence[str], environment: Mapping[str, str], step: Step) -> tuple[int, list[str]]:
    """Run mmdebstrap and show what it does; returns its exit code and its last lines."""
    log.debug("%s", shlex.join(argv))
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment,
    )
    last: list[str] = []
    try:
        assert process.stderr
        for line in process.stderr:
            last = [*last[1 - _KEPT_LINES :], line.rstrip()]
            if match := re.match(r"(Unpacking|Setting up) (\S+)", line):
                step.note(f"{match[1]} {match[2]}"[:40])
        return process.wait(), last
    finally:
        if process.poll() is None:
            end_group(process)


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a program and what it started; it gets time to remove its temporary files."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


class _spacious_tmp:
    """Gives mmdebstrap a TMPDIR of its own that is gone afterwards.

    As root it lies beside the result; an ordinary user's namespace may not pass through a private home
    directory, so there it is the system's, with the cache's key in its name.
    """

    @staticmethod
    def _base() -> tuple[Path, str]:
        base = paths.cache() if os.geteuid() == 0 else Path(tempfile.gettempdir())
        return base, f"labkit-bootstrap-{key_of(str(paths.cache()))}-"

    @classmethod
    def left(cls) -> list[Path]:
        """List those of this cache that are there."""
        base, prefix = cls._base()
        return [path for path in base.glob(f"{prefix}*") if path.stat().st_uid == os.geteuid()]

    def __enter__(self) -> dict[str, str]:
        base, prefix = self._base()
        self._path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        self._path.chmod(0o777 if os.geteuid() else 0o700)
        return {**os.environ, "TMPDIR": str(self._path), "PATH": SEARCH_PATH}

    def __exit__(self, *exc: object) -> None:
        _unmount_below(self._path)
        shutil.rmtree(self._path, ignore_errors=True)


def demand_space(directory: Path) -> None:
    """Refuse to begin what cannot fit; raises BuildError with what is free and what is needed."""
    free = shutil.disk_usage(directory).free
    if free < NEEDED_BYTES:
        raise BuildError(
            f"{directory} has {free / 1e9:.1f} GB free, building needs {NEEDED_BYTES / 1e9:.0f} GB",
            hint="make room there, or set LABKIT_HOME to a directory on a larger disk",
        )


def failed(what: str, last: Sequence[str], directory: Path) -> BuildError:
    """Return the error for a build tool that gave up: the disk, or its own last lines."""
    lines = "\n".join(f"  {line}" for line in last[-_SHOWN_LINES:])
    free = shutil.disk_usage(directory).free
    if free < 50_000_000 or "No space left" in lines:
        hint = f"the disk of {directory} is full: make room, or set LABKIT_HOME elsewhere; " + (
            "finished stages are kept"
        )
    else:
        hint = "mend what the last lines name and run the same command again; finished stages are kept"
    return BuildError(f"{what} failed; its last lines:\n{lines}", hint=hint)


def app_tar(progress: Progress) -> Path:
    """Make the web app's root file system."""
    folder = paths.COMPOSE / "app"
    packages = listed(folder / "packages")
    key = key_of(_RECIPE, APP_SUITE, *packages, folder / "server.py")
    return make_tar(
        paths.cache() / f"app-{key}.tar",
        suite=APP_SUITE,
        packages=packages,
        hooks=[_upload(folder / "server.py", "/srv/server.py"), *_SMALLER],
        progress=progress,
        title="web app from Debian packages",
    )


def _upload(file: Path, to: str) -> str:
    """Return the mmdebstrap hook that copies a file of the kit; hooks are split as a shell does."""
    return f"upload {shlex.quote(str(file))} {to}"


def node_tar_path(docker: str) -> Path:
    """Name the root file system of a node with that Docker version, made or not."""
    return paths.cache() / f"node-{docker}-{node_key(docker)}.tar"


def node_key(docker: str) -> str:
    """Name a node image by everything that goes into it."""
    app, node = paths.COMPOSE / "app", paths.COMPOSE / "node"
    wanted = versions.release(docker)
    return key_of(
        _RECIPE,
        wanted.suite,
        *wanted.packages,
        *listed(node / "packages"),
        *listed(app / "packages"),
        *(node / name for name in ("entrypoint", "seed", "agent.py", "containerd.toml", "daemon.json")),
        app / "server.py",
        *(wanted.repository.parts() if wanted.repository else ()),
    )


def node_tar(docker: str, progress: Progress) -> Path:
    """Make the root file system of a swarm node, with the web app's inside."""
    folder, wanted = paths.COMPOSE / "node", versions.release(docker)
    target = node_tar_path(docker)
    if target.exists():
        return target
    app = app_tar(progress)
    into = "usr/share/labkit/node-test usr/local/lib/labkit usr/local/bin etc/docker var/lib/docker"
    hooks = [
        " && ".join(f'mkdir -p "$1/{path}"' for path in into.split()),
        f"tar-in {shlex.quote(str(app))} /usr/share/labkit/node-test",
        _upload(folder / "containerd.toml", "/etc/docker/containerd.toml"),
        _upload(folder / "daemon.json", "/etc/docker/daemon.json"),
        _upload(folder / "agent.py", "/usr/local/lib/labkit/agent.py"),
        _upload(folder / "entrypoint", "/usr/local/bin/labkit-node"),
        _upload(folder / "seed", "/usr/local/lib/labkit/seed"),
        'chmod 755 "$1/usr/local/bin/labkit-node" "$1/usr/local/lib/labkit/seed"',
        *_SMALLER,
    ]
    return make_tar(
        target,
        suite=wanted.suite,
        packages=[*listed(folder / "packages"), *wanted.packages],
        hooks=hooks,
        progress=progress,
        title=f"node with Docker {docker} from Debian packages",
        repository=wanted.repository,
    )


_SMALLER = (
    'rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/cache/debconf/*-old '
    '"$1"/usr/bin/ctr "$1"/usr/bin/containerd-shim "$1"/usr/bin/containerd-shim-runc-v1 '
    '"$1"/usr/share/locale "$1"/etc/resolv.conf "$1"/etc/hostname',
)
