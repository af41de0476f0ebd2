"""A class on a bare Debian server: by the commands of docs/hub.md, from nothing to two learners' labs.

The server is a Debian with systemd in a container of systemd-nspawn, which shares this machine's
network and kernel; only root can start one. Its packages come from Debian, its Python packages are
those of this environment, and the saved state is this user's.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, expect

from labkit import paths
from labkit.engines import debian
from labkit.progress import Bars
from tests.hub import Hub, answers
from tests.jupyter import chromium
from tests.soak.results import Part

PAGE = paths.REPOSITORY / "docs" / "hub.md"
LEARNERS = ("ada", "bob")
SUITE, PYTHON = "bookworm", (3, 11)
SOON = 180_000  # ms
_SYSTEM = ("systemd-sysv", "dbus", "libpam-systemd", "procps", "iproute2", "bubblewrap")
_KIT = Path("opt/labkit")
_SCRIPT = "#!/opt/labkit/bin/python3\nimport sys\nfrom labkit.cli import main\nsys.exit(main())\n"


def run(seed: int) -> None:
    """Set a server up, and see what its learners have."""
    assert sys.version_info[:2] == PYTHON, f"{SUITE} has Python {PYTHON}: run this with that one"
    part = Part("server", 5, seed)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, contextlib.ExitStack() as stack:
        root = Path(place) / "server"
        _make(root)
        server = stack.enter_context(_Server.booted(root))
        browser = stack.enter_context(chromium())
        hub: list[Hub] = []
        pages: dict[str, Page] = {}
        steps: dict[str, Callable[[], None]] = {
            "the commands of the page make a hub that answers": lambda: hub.append(server.made()),
            "each learner logs in and starts a swarm": lambda: _start(hub[0], browser, pages),
            "each learner's unit has its limits": server.have_limits,
            "a server that is stopped puts its lab on disk": server.stop_them,
            "who logs in again has the same lab": lambda: _come_back(hub[0], browser, pages),
        }
        part.in_turn(steps)


def _commands() -> list[str]:
    """Return the commands that the page tells root to type, one a line."""
    text = PAGE.read_text()
    section = text[text.index("## From a bare Debian server") : text.index("## What a learner meets")]
    return re.findall(r"^    (\S.*?)(?: +#.*)?$", section, re.MULTILINE)


def _make(root: Path) -> None:
    """Make the server's disk: Debian's packages, those of this environment, and the saved state."""
    asked = next(line for line in _commands() if line.startswith("apt-get install "))
    packages = [*asked.split()[3:], *(debian.TOOLS[name] for name in debian.RUN_TOOLS), *_SYSTEM]
    tar = debian.make_tar(
        root.with_suffix(".tar"),
        suite=SUITE,
        packages=sorted(set(packages)),
        hooks=[],
        progress=Bars(),
        title="a bare server",
    )
    root.mkdir()
    subprocess.run(["tar", "-C", root, "--numeric-owner", "-xf", tar], check=True)
    tar.unlink()
    subprocess.run(["chroot", root, "python3", "-m", "venv", "--without-pip", f"/{_KIT}"], check=True)
    own = next((root / _KIT).glob("lib/python3*/site-packages"))
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    shutil.copytree(here, own, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*labkit*"))
    for name in ("share", "etc"):
        shutil.copytree(Path(sys.prefix) / name, root / _KIT / name, symlinks=True)
    wheel = root / "wheel"
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", wheel, paths.REPOSITORY]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", own, *wheel.glob("*.whl")]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    for name in ("labkit", "alembic"):
        script = root / _KIT / "bin" / name
        script.write_text(
            _SCRIPT if name == "labkit" else _SCRIPT.replace("labkit.cli", "alembic.config")
        )
        script.chmod(0o755)
    cache = root / "root" / ".cache" / "labkit"
    cache.parent.mkdir(mode=0o700)
    kept = ["cp", "--recursive", "--sparse=always", "--no-target-directory"]
    subprocess.run([*kept, paths.cache().resolve(), cache], check=True)


class _Server:
    """A server that runs: its disk, and its first process as this machine sees it."""

    def __init__(self, root: Path, first: int) -> None:
        self.root, self._first = root, first

    @classmethod
    @contextlib.contextmanager
    def booted(cls, root: Path) -> Iterator[_Server]:
        """Boot it until it says that it runs."""
        argv = ["systemd-nspawn", "--quiet", "--directory", root, "--boot", "--register=no"]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            [*argv, "--keep-unit", "--console=pipe"], stdin=quiet, stdout=quiet, stderr=quiet
        ) as started:
            try:
                deadline = time.monotonic() + 60
                while not (inside := psutil.Process(started.pid).children()):
                    assert time.monotonic() < deadline, "nothing was started in the container"
                    time.sleep(0.2)
                server = cls(root, inside[0].pid)
                while server.said("systemctl is-system-running") != "running":
                    assert time.monotonic() < deadline, server.said("systemctl --failed")
                    time.sleep(0.5)
                yield server
            finally:
                started.terminate()
                started.wait(60)

    def said(self, command: str, *, check: bool = False) -> str:
        """Run a line of a shell in it, as root with the page's PATH; returns what it said."""
        enter = [
            "nsenter",
            "--target",
            str(self._first),
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
        ]
        done = subprocess.run(
            [*enter, "--root", "--wd", "--", "bash", "-c", command],
            env={"HOME": "/root", "PATH": f"/{_KIT}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def made(self) -> Hub:
        """Type what the page says; what was installed already is left out."""
        for command in _commands():
            if command.startswith(("apt-get ", "python3 -m venv", "/opt/labkit/bin/pip", "export ")):
                continue
            roster = "--roster class.csv"
            self.said(
                command.replace(roster, " ".join(LEARNERS)),
                check=not command.startswith("labkit doctor"),
            )
        folder = self.root / "srv" / "class"
        lines = (folder / "logins.txt").read_text().splitlines()
        url = "http://127.0.0.1:8000"
        deadline = time.monotonic() + 60
        while not answers(f"{url}/hub/health"):
            assert time.monotonic() < deadline, self.said("journalctl --no-pager --unit labkit-hub")
            time.sleep(0.5)
        passwords = {line.split(":")[0]: line.split(":")[1] for line in lines}
        return Hub(folder, url, passwords, Path(f"/{_KIT}/bin/python3"))

    def have_limits(self) -> None:
        """Look at what each unit may take, and that its lab runs in it."""
        for login in LEARNERS:
            unit = f"jupyter-{login}-singleuser.service"
            told = self.said(f"systemctl show {unit} -p MemoryMax -p CPUQuotaPerSecUSec -p PrivateTmp")
            assert set(told.splitlines()) == {
                *("MemoryMax=3221225472", "CPUQuotaPerSecUSec=2s", "PrivateTmp=yes")
            }, told
            assert "qemu-system" in self.said(f"systemctl status {unit} --no-pager")

    def stop_them(self) -> None:
        """Stop the learners' servers, as the hub does."""
        for login in LEARNERS:
            self.said(f"systemctl stop jupyter-{login}-singleuser.service", check=True)
            assert not self.said(f"pgrep -u {login} qemu-system")
            assert (self.root / "home" / login / ".local/state/labkit/labs/default/hibernated").exists()


def _start(hub: Hub, browser: Browser, pages: dict[str, Page]) -> None:
    for login in LEARNERS:
        pages[login] = hub.arrive(browser, login)
        start = pages[login].locator("#labkit-start").get_by_role("button", name="Start the swarm")
        start.click()
    for page in pages.values():
        expect(page.locator("#labkit-swarm .labkit-node")).to_have_count(3, timeout=SOON)
    drain = pages[LEARNERS[0]].locator("#labkit-swarm details", has_text="node2").first
    drain.locator("summary").first.click()
    drain.get_by_role("button", name="Drain").click()
    expect(pages[LEARNERS[0]].locator("#labkit-swarm")).to_contain_text("drain", timeout=SOON)


def _come_back(hub: Hub, browser: Browser, pages: dict[str, Page]) -> None:
    for page in pages.values():
        page.context.close()
    deadline = time.monotonic() + 120
    while True:  # the hub looks every half minute whether a learner's server is there
        page = browser.new_page()
        page.goto(hub.url)
        page.close()
        with contextlib.suppress(Exception):
            page = hub.arrive(browser, LEARNERS[0])
            break
        assert time.monotonic() < deadline, "nobody could log in again"
    expect(page.locator("#labkit-swarm .labkit-node")).to_have_count(3, timeout=SOON)
    expect(page.locator("#labkit-swarm")).to_contain_text(
        "drain", timeout=SOON
    )  # what was done is there
