"""The distributions, and the wheel installed as a stranger would: no checkout in reach."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Programs that neither macOS nor Fedora has, or that a learner there may not have installed.
HIDDEN = {"apt-get", "apt", "dpkg", "sudo", "mmdebstrap", "bwrap", "newuidmap", "cpio"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make dist` names the directory of what it has built."""
    parser.addoption(
        "--distributions", type=Path, help="the distributions to test; else they are built now"
    )


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a directory that the first of pytest's processes has filled, for all of them."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own directory is in that of the run
    root, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(root, ignore_errors=True)  # of one that failed
            root.mkdir()
            make(root)
            made.touch()
    return root


@pytest.fixture(scope="session")
def distributions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distribution and the wheel that was built from it."""
    if built := request.config.getoption("--distributions"):
        return ROOT / built

    def build(out: Path) -> None:
        argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    return made_once(tmp_path_factory, "dist", build)


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    """The wheel; there is one."""
    (found,) = distributions.glob("*.whl")
    return found


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, and an environment that knows of no checkout."""

    bin: Path
    env: dict[str, str]
    cwd: Path

    def __call__(
        self, *argv: str | Path, timeout: float = 240, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; it must end well."""
        done = subprocess.run(
            [self.bin / argv[0], *argv[1:]],
            env={**self.env, **env},
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def evidence(self) -> Path:
        """The recordings inside the installed package."""
        code = "from labkit import paths; print(paths.EVIDENCE)"
        return Path(self("python", "-c", code).stdout.strip())


def _environment_of_a_stranger() -> dict[str, str]:
    """The environment variables of somebody who has no checkout."""
    return {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and all that it asks for, in the versions of the lock."""

    def install(root: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", root], check=True)
        lock = (ROOT / "requirements.lock").read_text()
        pinned = re.findall(r"^([\w.-]+==[^\\]+)", lock, re.MULTILINE)
        constraints = root / "constraints.txt"
        constraints.write_text("\n".join(pinned))
        pip = [root / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        argv = [*pip, "--constraint", constraints, wheel]
        subprocess.run(argv, check=True, cwd=root, env=_environment_of_a_stranger())

    return made_once(tmp_path_factory, "installed", install)


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    """The wheel's commands, run in an empty directory."""
    env = _environment_of_a_stranger()
    env["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # Nobody's Docker engine, and none of the user's own settings of Jupyter.
    env |= {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    cwd = tmp_path / "empty"
    cwd.mkdir()
    return Installed(environment / "bin", env, cwd)


@pytest.fixture(scope="session")
def path_without_apt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH of one directory: links to every program of this machine but apt's, QEMU and the like."""
    directory = tmp_path_factory.mktemp("bin")
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.glob("*") if folder.is_dir() else ():
            name = program.name
            link = directory / name
            if name not in HIDDEN and not name.startswith(("apt", "qemu-")) and not link.is_symlink():
                link.symlink_to(program)
    return str(directory)
