"""Measures the swarm beside the notebook: what it costs at rest, and how soon it shows a change.

bench/page.py [ROUNDS] writes bench/results/page-<date>.json. It follows the state as the page in a
browser does, on a swarm of its own with five tasks. At rest the page and no page take turns; a change
is a task that is killed, and beside it stands what a learner would do instead: one `docker service ps`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from labkit import benchmark, engines, files, swarm
from tests import BIN
from tests.jupyter import serving

RESULTS = Path(__file__).parent / "results"
LAB = "bench-page"
REST_S = 20.0
FORGOTTEN_S = 60.0  # after the last question the server goes on for a while


class Page:
    """What a browser does: asks for the next state, again and again."""

    def __init__(self, url: str) -> None:
        server, _, self._token = url.partition("/lab?")
        self._address = f"{server}/labkit/swarm"
        self.state: dict[str, Any] = {"version": -1}

    def next(self) -> dict[str, Any]:
        """Wait for the next state, as long as the server does."""
        address = f"{self._address}?after={self.state['version']}&{self._token}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            self.state = json.load(answer)
        return self.state

    def until(self, fits: Callable[[dict[str, Any]], bool]) -> float:
        """Follow until a state fits; returns when, on the monotonic clock."""
        while not (self.state.get("seen") and fits(self.state["seen"])):
            self.next()
        return time.monotonic()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Follow in a thread while the body runs."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.is_set():
                self.next()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        yield
        ended.set()
        thread.join()


def processor(processes: list[psutil.Process]) -> float:
    """Return what the processes take of a core, in percent, while nothing happens."""

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = spent()
    time.sleep(REST_S)
    return (spent() - before) / REST_S * 100


def at_rest(page: Page, rounds: int) -> dict[str, list[float]]:
    """Measure with the page and without it, in turns."""
    connection = engines.find(LAB)
    assert connection
    assert connection.pid
    server = next(p for p in psutil.Process().children() if "jupyterlab" in p.cmdline())
    both = [server, psutil.Process(connection.pid)]
    found: dict[str, list[float]] = {"with_page": [], "without": []}
    for _ in range(rounds):
        with page.open():
            time.sleep(5)
            found["with_page"].append(processor(both))
        time.sleep(FORGOTTEN_S)
        found["without"].append(processor(both))
    return found


def changes(page: Page, lab: swarm.Lab, rounds: int) -> dict[str, list[float]]:
    """Kill a task, and measure until the page has it, and beside it one `docker service ps`."""
    found: dict[str, list[float]] = {"seen": [], "service_ps": []}
    for _ in range(rounds):
        page.until(lambda seen: all(row["running"] == row["wanted"] for row in seen["services"]))
        page.next()  # at rest again
        task = lab.task("web.1")
        task.node.run(["docker", "kill", task.container]).check()
        began = time.monotonic()

        def dead(seen: dict[str, Any], container: str = task.container) -> bool:
            return not any(
                row["container"] == container and row["state"] == "running" for row in seen["tasks"]
            )

        found["seen"].append(page.until(dead) - began)
        began = time.monotonic()
        lab.manager.run("docker service ps web").check()
        found["service_ps"].append(time.monotonic() - began)
    return found


def refreshes(lab: swarm.Lab, rounds: int) -> list[float]:
    """Measure one look."""
    took = []
    for _ in range(rounds):
        began = time.monotonic()
        lab.look()
        took.append(time.monotonic() - began)
    return took


def main() -> None:
    """Measure, and write the result."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        argv = [BIN, "lab", base / "labs", "--no-browser", "--engine", "vm", "--lab", LAB]
        try:
            with serving(argv, log=base / "log", env=os.environ, cwd=base) as url:
                lab = swarm.get(LAB)
                lab.service("web", replicas=5)
                page = Page(url)
                rest = at_rest(page, rounds)
                changed = changes(page, lab, rounds)
                looks = refreshes(lab, 20)
                lab.close()
        finally:
            swarm.down(LAB)
    named = {
        "page_percent_of_a_core": rest["with_page"],
        "no_page_percent_of_a_core": rest["without"],
        "change_seen_s": changed["seen"],
        "docker_service_ps_s": changed["service_ps"],
        "look_s": looks,
    }
    figures = {
        name: {
            "median": round(statistics.median(values), 3),
            "from": round(min(values), 3),
            "to": round(max(values), 3),
            "count": len(values),
        }
        for name, values in named.items()
    }
    when = datetime.now(UTC)
    result = {"date": f"{when:%Y-%m-%d}", "machine": benchmark.machine(), "figures": figures}
    files.write_json(RESULTS / f"page-{when:%Y-%m-%d}.json", result)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
