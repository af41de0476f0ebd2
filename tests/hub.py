"""A class on this machine: accounts, a hub that runs, and learners who log in with a browser."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from labkit import paths

_SITE = Path(next(p for p in sys.path if p.endswith("site-packages")))
_ROOTS_COMMANDS = re.compile(r"^       (newusers|cut|chown) .*", re.MULTILINE)
_READ = "import sys; print(open(sys.argv[1], 'rb').read(9))"
_LIST = "import os, sys; print(os.listdir(sys.argv[1]))"
_ASK = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2] + "/ca.pem")
context.load_cert_chain(sys.argv[2] + "/cert.pem", sys.argv[2] + "/key.pem")
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as door:
    with context.wrap_socket(door, server_hostname="127.0.0.1") as inside:
        inside.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
        print(inside.recv(99))
"""
# On every port that an account listens on, as the kernel tells anybody who does.
_HEAR = """
import sys, zmq
rows = [line.split() for line in open("/proc/net/tcp")][1:]
ports = [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[7] == sys.argv[1]]
ear = zmq.Context().socket(zmq.SUB)
ear.linger = 0
ear.subscribe(b"")
for port in ports:
    ear.connect(f"tcp://127.0.0.1:{port}")
print(ear.recv_multipart() if ear.poll(10_000) else f"silence on {len(ports)} ports")
"""
# A question that runs nothing; the kernel tells all who listen that it is busy, and idle again.
_TALK = """
import sys, time
from jupyter_client import BlockingKernelClient
client = BlockingKernelClient()
client.load_connection_file(sys.argv[1])
client.start_channels(hb=False)
for _ in range(20):
    client.kernel_info(reply=True, timeout=60)
    time.sleep(0.5)
print("it answered")
"""


@dataclass(frozen=True)
class Hub:
    """A hub that runs: its folder, its address, and the passwords by login."""

    directory: Path
    url: str
    passwords: dict[str, str]
    python: Path

    def arrive(self, browser: Browser, login: str) -> Page:
        """Log in, and wait for the start page."""
        page = browser.new_context(viewport={"width": 1366, "height": 1000}).new_page()
        page.set_default_timeout(180_000)
        page.goto(self.url)
        page.get_by_label("Username:").fill(login)
        page.get_by_label("Password:").fill(self.passwords[login])
        page.get_by_role("button", name="Sign in").click()
        page.locator("#labkit-start .labkit-lab").first.wait_for()
        return page

    def run(
        self, login: str, argv: Sequence[str | Path], cwd: Path = Path("/")
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as somebody of the class, as in a terminal of the hub."""
        user = pwd.getpwnam(login)
        env = {
            "HOME": user.pw_dir,
            "USER": login,
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "LABKIT_EXCHANGE": str(self.directory / "exchange" / "labkit"),
        }
        return subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    def teaches(self, instructor: str, *argv: str) -> str:
        """Run a command of labkit's as the instructor in the course folder; returns what it printed."""
        done = self.run(instructor, ["labkit", *argv], cwd=self.directory / "course")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def open_to(self, login: str, other: str, lab: str) -> list[str]:
        """Try as one learner what is another's; returns what could be had, which ought to be nothing.

        Tried are the files of a lab that the other has run, every folder of the class, the ports of the
        other's machine, with the very keys that it takes, and what the other's kernel says meanwhile.
        Fails where the other has no such files or no kernel, or where the learner does not come into
        their own machine in the same way.
        """
        theirs = home(other) / "labkit-labs"
        own, record = machine_of(login), machine_of(other)
        inbound = self.directory / "exchange" / "labkit" / "inbound"
        tls = next((self.directory / "state").glob("machine-*/tls"))
        files = [theirs / f"{lab}.ipynb", theirs / f"{lab}.evidence.jsonl"]
        runtime = home(other) / ".local" / "share" / "jupyter" / "runtime"
        folders = [theirs, home(other), inbound, self.directory / "course", self.directory / "hub"]
        folders.append(runtime)
        ports = [record["port"], record["relay"], *record["inside"]]
        assert all(path.exists() for path in (*files, *folders))
        assert "200 OK" in self._said(login, _ASK, [str(own["port"]), tls])
        tries: list[tuple[str, list[str | Path], str]] = [
            *((_READ, [path], "PermissionError: ") for path in files),
            *((_LIST, [path], "PermissionError: ") for path in folders),
            *((_ASK, [str(port), tls], "Error") for port in ports),
        ]
        said = [(argv[0], refusal, self._said(login, it, argv)) for it, argv, refusal in tries]
        kernel = max(runtime.glob("kernel-*.json"), key=lambda path: path.stat().st_mtime)
        with ThreadPoolExecutor() as pool:
            answers = pool.submit(self._said, other, _TALK, [kernel])
            said.append(
                (kernel, "silence", self._said(login, _HEAR, [str(pwd.getpwnam(other).pw_uid)]))
            )
            assert answers.result() == "it answered"
        return [f"{what}: {had}" for what, refusal, had in said if refusal not in had]

    def _said(self, login: str, program: str, argv: Sequence[str | Path]) -> str:
        """Run a Python program as a learner; returns what it said last."""
        done = self.run(login, [self.python, "-c", program, *argv])
        return (done.stdout + done.stderr).strip().splitlines()[-1]


def home(login: str) -> Path:
    """Return an account's home."""
    return Path(pwd.getpwnam(login).pw_dir)


def machine_of(login: str) -> dict[str, Any]:
    """Return what labkit has noted of a learner's machine."""
    record: dict[str, Any] = json.loads(
        (home(login) / ".local/state/labkit/labs/default/machine.json").read_text()
    )
    return record


@contextlib.contextmanager
def running(learners: Sequence[str], instructor: str) -> Iterator[Hub]:
    """Make a class as docs/hub.md tells, start its hub, and leave nothing of it.

    The accounts are real ones of this machine; they go with the body.
    """
    with contextlib.ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="labkit-class-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, base)
        base.chmod(0o755)  # a learner has to get through
        python = _python(base)
        folder = base / "class"
        port = _three_free_ports()
        argv = [python, "-m", "labkit", "class", "init", folder, *learners]
        argv += ["--instructor", instructor, "--spawner", "local", "--port", str(port)]
        subprocess.run(argv, cwd=base, env=_environment(python), check=True)
        lines = (folder / "logins.txt").read_text().splitlines()
        for login in (*learners, instructor):
            stack.callback(_remove_account, login)
        # What the folder's own README tells root to do.
        for command in _ROOTS_COMMANDS.finditer((folder / "README.md").read_text()):
            subprocess.run(["sh", "-c", command[0]], check=True)
        for login in learners:
            stack.callback(_end_all_of, login, python)
        hub = Hub(
            folder,
            f"http://127.0.0.1:{port}",
            {line.split(":")[0]: line.split(":")[1] for line in lines},
            python,
        )
        stack.enter_context(_serving(hub))
        yield hub


@contextlib.contextmanager
def _serving(hub: Hub) -> Iterator[None]:
    argv = [hub.python, "-m", "jupyterhub", "-f", hub.directory / "jupyterhub_config.py"]
    log = hub.directory / "hub.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=hub.directory / "hub", stdout=out, stderr=out, env=_environment(hub.python)
        )
    try:
        deadline = time.monotonic() + 90
        while not answers(f"{hub.url}/hub/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _environment(python: Path) -> dict[str, str]:
    """Return root's environment with that Python first, and with no other labkit in it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PATH": f"{python.parent}:{os.environ['PATH']}"}


def answers(url: str) -> bool:
    """Whether a page is there."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _python(base: Path) -> Path:
    """Return a Python with this labkit that every account may run.

    What lies in somebody's home is replaced by Debian's own, with the same packages and the same kit.
    """
    here = Path(sys.executable)
    ways = [*here.resolve().parents, *_SITE.parents, *paths.PACKAGE.parents]
    if all(way.stat().st_mode & 0o001 for way in ways):
        return here
    place = base / "python"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", place], check=True)
    own = next(place.glob("lib/python*/site-packages"))
    assert own.parent.name == _SITE.parent.name, f"Debian's Python is {own.parent.name}"
    kit = base / "kit"  # found before the one that the environment names
    kit.mkdir()
    (own / "kit.pth").write_text(f"{kit}\n")
    copies = {_SITE: own}
    copies |= {Path(sys.prefix) / name: place / name for name in ("share", "etc")}
    copies |= {paths.REPOSITORY / name: kit / name for name in ("labkit", "labs", "compose")}
    for source, target in copies.items():
        # Links to the same files, where both are on one disk.
        copy = ["cp", "--recursive", "--no-target-directory", source, target]
        if subprocess.run([*copy, "--link"], capture_output=True, check=False).returncode:
            subprocess.run([*copy, "--force"], check=True)
    python = place / "bin" / "python3"
    for script in here.parent.iterdir():
        begins, _, rest = script.read_bytes().partition(b"\n") if script.is_file() else (b"", b"", b"")
        if begins.startswith(b"#!" + os.fsencode(here.parent)):
            copy = python.with_name(script.name)
            copy.write_bytes(b"#!" + os.fsencode(python) + b"\n" + rest)
            copy.chmod(0o755)
    return python


def _three_free_ports() -> int:
    """Return a port that is free, and the two after it."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in (first + 1, first + 2):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return int(first)


def _end_all_of(login: str, python: Path) -> None:
    """Take down a learner's lab, and end what else runs as them."""
    user = pwd.getpwnam(login)
    subprocess.run(
        [python, "-m", "labkit", "down", "--all"],
        env={"HOME": user.pw_dir, "USER": login, "PATH": os.environ["PATH"]},
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        check=True,
    )
    subprocess.run(["pkill", "-KILL", "-u", login], check=False)


def _remove_account(login: str) -> None:
    subprocess.run(["userdel", "--remove", "--force", login], check=True, capture_output=True)
