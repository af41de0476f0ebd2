"""Builds root file systems from Debian packages, with no registry and no Docker: `mmdebstrap`.

Runs as an ordinary user too (in a user namespace of its own). Each result is a tar file, named by a key
that is made of everything that went into it; a file under its name is whole, because it got the name
last.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from labkit import paths
from labkit.errors import BuildError, UnknownNameError
from labkit.progress import Progress

APP_SUITE = "trixie"

# command -> the Debian package it comes in
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "newuidmap": "uidmap",
}
# Ordinary users on Debian have no sbin in their PATH, yet mke2fs lives there and needs no root.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

_TRIMMED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_NEEDED_BYTES = 4_000_000_000
_RECIPE = "2"  # raise it when this file comes to make other images of the same inputs


@dataclass(frozen=True)
class Release:
    """A Docker version as Debian carries it: the release's code name, and the engine's packages."""

    docker: str
    suite: str
    packages: tuple[str, ...]


@cache
def releases() -> dict[str, Release]:
    """Read compose/versions.yaml: Docker version -> where Debian carries it."""
    table = yaml.safe_load((paths.COMPOSE / "versions.yaml").read_text())
    return {v: Release(v, row["suite"], tuple(row["packages"])) for v, row in table.items()}


def release(docker: str) -> Release:
    """Find a Docker version; raises UnknownNameError."""
    known = releases()
    if docker not in known:
        raise UnknownNameError("Docker version of the nodes", docker, known)
    return known[docker]


def tool(name: str) -> str:
    """Find a program that a Debian package brings; raises BuildError with the package's name."""
    found = shutil.which(name, path=SEARCH_PATH)
    if not found:
        raise missing_tools([name])
    return found


def missing_packages() -> list[str]:
    """List the Debian packages that the embedded machine needs and this machine lacks."""
    return sorted({p for name, p in TOOLS.items() if not shutil.which(name, path=SEARCH_PATH)})


def missing_tools(names: Iterable[str]) -> BuildError:
    """Say which programs are missing, and the command that installs them."""
    packages = sorted({TOOLS[name] for name in names})
    return BuildError(
        f"the embedded machine needs programs that are not here: {', '.join(names)}",
        hint=install_command(packages),
    )


def install_command(packages: Sequence[str]) -> str:
    """Return the one command that needs root."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def listed(file: Path) -> list[str]:
    """Read a list of one name a line, with # comments."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def key_of(*parts: str | Path) -> str:
    """Name a result by everything that went into it: texts, and files by their content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


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


def make_tar(
    target: Path,
    *,
    suite: str,
    packages: Sequence[str],
    hooks: Sequence[str],
    progress: Progress,
    title: str,
) -> Path:
    """Make a root file system as a tar at `target`; one that is already there is taken.

    `hooks` are mmdebstrap customize hooks. Raises BuildError with the tool's last lines.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    demand_space(target.parent)
    unfinished = target.with_name(f"unfinished-{target.name}")
    argv = [tool("mmdebstrap"), "--variant=minbase", f"--include={','.join(packages)}"]
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
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += ["--format=tar", suite, str(unfinished)]
    site = mirror()
    if site:
        argv.append(site)
    with progress.stage(title) as step, _spacious_tmp() as environment:
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
            seen = 0
            for line in process.stderr:
                last = [*last[-11:], line.rstrip()]
                if match := re.match(r"(Unpacking|Setting up) (\S+)", line):
                    seen += 1
                    step.note(f"{match[1]} {match[2]}"[:40])
            code = process.wait()
        finally:
            if process.poll() is None:
                end_group(process)
            if process.returncode:
                unfinished.unlink(missing_ok=True)
        if code:
            raise failed(f"making the root file system of {title!r}", last, target.parent)
        os.replace(unfinished, target)
    return target


def end_group(process: subprocess.Popen[str]) -> None:
    """End a program and what it started; it gets time to remove its temporary files."""
    import signal

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
    directory, so there it is the system's.
    """

    def __enter__(self) -> dict[str, str]:
        base = paths.cache() if os.geteuid() == 0 else Path(tempfile.gettempdir())
        self._path = Path(tempfile.mkdtemp(prefix="labkit-bootstrap-", dir=base))
        self._path.chmod(0o777 if os.geteuid() else 0o700)
        return {**os.environ, "TMPDIR": str(self._path), "PATH": SEARCH_PATH}

    def __exit__(self, *exc: object) -> None:
        # A bootstrap that had to be killed may have left /proc, /sys and /dev mounted in there.
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = line.split()[1]
            if place.startswith(f"{self._path}/"):
                subprocess.run(["umount", "--lazy", place], capture_output=True, check=True)
        shutil.rmtree(self._path, ignore_errors=True)


def demand_space(directory: Path) -> None:
    """Refuse to begin what cannot fit; raises BuildError with what is free and what is needed."""
    free = shutil.disk_usage(directory).free
    if free < _NEEDED_BYTES:
        raise BuildError(
            f"{directory} has {free / 1e9:.1f} GB free, building needs {_NEEDED_BYTES / 1e9:.0f} GB",
            hint="make room there, or set LABKIT_HOME to a directory on a larger disk",
        )


def failed(what: str, last: Sequence[str], directory: Path) -> BuildError:
    """Tell why a build tool gave up: the disk, or its own last lines."""
    told = "\n".join(f"  {line}" for line in last)
    free = shutil.disk_usage(directory).free
    if free < 50_000_000 or "No space left" in told:
        hint = f"the disk of {directory} is full: make room, or set LABKIT_HOME elsewhere; " + (
            "finished stages are kept"
        )
    else:
        hint = "mend what the last lines name and run the same command again; finished stages are kept"
    return BuildError(f"{what} failed; its last lines:\n{told}", hint=hint)


def app_tar(progress: Progress) -> Path:
    """Make the web app's root file system."""
    folder = paths.COMPOSE / "app"
    packages = listed(folder / "packages")
    key = key_of(_RECIPE, APP_SUITE, *packages, folder / "server.py")
    return make_tar(
        paths.cache() / f"app-{key}.tar",
        suite=APP_SUITE,
        packages=packages,
        hooks=[f"upload '{folder / 'server.py'}' /srv/server.py", *_SMALLER],
        progress=progress,
        title="web app from Debian packages",
    )


def node_tar_path(docker: str) -> Path:
    """Name the root file system of a node with that Docker version, made or not."""
    return paths.cache() / f"node-{docker}-{node_key(docker)}.tar"


def node_key(docker: str) -> str:
    """Name a node image by everything that goes into it."""
    app, node = paths.COMPOSE / "app", paths.COMPOSE / "node"
    wanted = release(docker)
    return key_of(
        _RECIPE,
        wanted.suite,
        *wanted.packages,
        *listed(node / "packages"),
        *listed(app / "packages"),
        *(node / name for name in ("entrypoint", "seed", "agent.py", "containerd.toml", "daemon.json")),
        app / "server.py",
    )


def node_tar(docker: str, progress: Progress) -> Path:
    """Make the root file system of a swarm node, with the web app's inside."""
    folder, wanted = paths.COMPOSE / "node", release(docker)
    target = node_tar_path(docker)
    if target.exists():
        return target
    app = app_tar(progress)
    into = "usr/share/labkit/node-test usr/local/lib/labkit usr/local/bin etc/docker var/lib/docker"
    hooks = [
        " && ".join(f'mkdir -p "$1/{path}"' for path in into.split()),
        f"tar-in '{app}' /usr/share/labkit/node-test",
        f"upload '{folder / 'containerd.toml'}' /etc/docker/containerd.toml",
        f"upload '{folder / 'daemon.json'}' /etc/docker/daemon.json",
        f"upload '{folder / 'agent.py'}' /usr/local/lib/labkit/agent.py",
        f"upload '{folder / 'entrypoint'}' /usr/local/bin/labkit-node",
        f"upload '{folder / 'seed'}' /usr/local/lib/labkit/seed",
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
    )


_SMALLER = (
    'rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/cache/debconf/*-old '
    '"$1"/usr/bin/ctr "$1"/usr/bin/containerd-shim "$1"/usr/bin/containerd-shim-runc-v1 '
    '"$1"/usr/share/locale "$1"/etc/resolv.conf "$1"/etc/hostname',
)
