"""One real swarm for every test that needs one: the embedded machine, three nodes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labkit import swarm
from labkit.progress import Bars
from tests import BIN

LAB = "live-tests"
_WITH_SWARM = ("tests/live/", "tests/dist/test_no_apt.py")
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands on the swarm, by the folder that it is in."""
    for item in items:
        if item.path.parent.name == "live":
            item.add_marker(pytest.mark.live)
    if "PYTEST_XDIST_WORKER" in os.environ:  # what takes longest begins first
        items.sort(key=lambda item: not item.nodeid.startswith(_WITH_SWARM))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of processes that share the tests by files, let one take all that share the swarm."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "swarm" if nodeid.startswith(_WITH_SWARM) else nodeid.partition("::")[0]

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine, built beside the tests that need none; `up` waits for it, or makes it."""
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if not first or not any(item.get_closest_marker("live") for item in request.session.items):
        yield
        return
    command = [BIN, "vm", "build"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as building:
        yield
        building.terminate()  # where it has not ended, nothing asked for it


@pytest.fixture(scope="session")
def lab() -> Iterator[swarm.Lab]:
    """The swarm; a failure to get one is a failure, never a skip."""
    swarm.down(LAB)
    try:
        started = swarm.up(LAB, engine="vm", progress=Bars()).lab
        yield started
        started.close()
    finally:
        swarm.down(LAB)


@pytest.fixture(scope="session")
def hello(lab: swarm.Lab) -> swarm.Lab:
    """The swarm with the article's service on it."""
    lab.network("my-overlay")
    lab.keep_only("hello-a")
    lab.service("hello-a", publish="5000:3000", networks=["my-overlay"], replicas=2)
    lab.wait_for_answers("hello-a")

    def look() -> tuple[bool, str]:
        argv = ["curl", "-sS", "-m", "20", "http://127.0.0.1:5000"]
        asked = lab.run_all([(node.place, argv) for node in lab.nodes.values()])
        return all(c.ok for c in asked), "; ".join(c.stderr.strip() for c in asked)

    swarm.wait_for("the published port to answer on every node", look)
    return lab


@pytest.fixture
def labkit() -> Command:
    """The command, run as a person would; --lab is the live tests' own unless given."""

    def run(*argv: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        command = [BIN, *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run
