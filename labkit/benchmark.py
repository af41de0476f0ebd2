"""Measures what people wait for, each figure beside what they would do without labkit, in one run.

Machines are noisy: rounds alternate between the two sides, and a figure is a median with its range. The
docker client on the PATH plays the person; `bench/plain_up.sh` is what that person would type.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit import __version__, engines, paths, swarm
from labkit.engines import images
from labkit.engines.base import Connection, Engine
from labkit.errors import EngineError
from labkit.progress import Progress

LABKIT = Path(sys.executable).with_name("labkit")
LAB = "bench"
PROBES = 40  # a round; five rounds make 200
SIZES = (1, 3, 5, 9)


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured in each round, and what it stands beside."""

    name: str
    unit: str
    ours: list[float]
    theirs: list[float]
    goal: str

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians, or None where there is nothing to compare with."""
        if not self.theirs:
            return None
        return statistics.median(self.ours) / statistics.median(self.theirs)

    def to_json(self) -> dict[str, Any]:
        """Return it with its medians and its ratio."""
        medians = {
            "median": round(statistics.median(self.ours), 3),
            "median_of_theirs": round(statistics.median(self.theirs), 3) if self.theirs else None,
            "ratio": round(self.ratio, 4) if self.ratio is not None else None,
        }
        return {**asdict(self), **medians}


def run(rounds: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """Measure figure by figure and yield the record so far: what was measured must not be lost.

    Raises EngineError without a docker client.
    """
    if not shutil.which("docker"):
        raise EngineError(
            "the benchmark needs a docker client, to do what a person would do",
            hint="sudo apt-get install --no-install-recommends docker-cli (docker.io on Debian 12)",
        )
    record: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "kit": __version__,
        "machine": machine(),
        "rounds": rounds,
        "figures": [],
        "sizes": [],
    }
    for measure in (_command, _restored, _further_labs, _cold_on_an_engine, _probes):
        with progress.stage(measure.__doc__ or ""):
            record["figures"] += [figure.to_json() for figure in measure(rounds)]
        yield record
    for nodes in SIZES:
        with progress.stage(f"up and memory, {nodes} nodes"):
            record["sizes"].append(_size(nodes))
        yield record


def machine() -> dict[str, Any]:
    """Return on what the figures were measured: name -> value."""
    import psutil

    return {
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "processors": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **engine().facts(),
        "python": platform.python_version(),
    }


def engine() -> Engine:
    """Return the engine that is measured: the one that keeps what it has made."""
    return next(one for one in engines.every() if one.checkpoints(LAB) is not None)


def _connection(lab: str) -> Connection:
    found = engines.find(lab)
    assert found
    return found


def _seconds(argv: Sequence[str | Path], **environment: str) -> float:
    began = time.monotonic()
    done = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    took = time.monotonic() - began
    if done.returncode:
        raise EngineError(f"`{' '.join(map(str, argv))}` failed: {done.stderr.strip()[-500:]}")
    return took


def _up(lab: str, *more: str) -> tuple[float, dict[str, Any]]:
    """Run `labkit up` as a person does; returns the whole command's seconds, and what it told."""
    began = time.monotonic()
    argv = [str(LABKIT), "up", "--engine", engine().kind, "--lab", lab, "--json", *more]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    if done.returncode:
        raise EngineError(f"labkit up failed: {done.stderr.strip()[-500:]}")
    return took, json.loads(done.stdout)


@contextmanager
def _lab(lab: str, *more: str) -> Iterator[dict[str, Any]]:
    swarm.down(lab)
    try:
        yield _up(lab, *more)[1]
    finally:
        swarm.down(lab)


def _command(rounds: int) -> list[Figure]:
    """the command and the library by themselves"""
    told = [_seconds([LABKIT, "--help"]) for _ in range(rounds)]
    loaded = [_seconds([sys.executable, "-c", "import labkit"]) for _ in range(rounds)]
    return [
        Figure("labkit --help", "s", told, [], "0.3 s"),
        Figure("import labkit", "s", loaded, [], "0.3 s"),
    ]


def _restored(rounds: int) -> list[Figure]:
    """labkit up from the saved state, beside a cold one"""
    answered, proved, cold = [], [], []
    for _ in range(rounds):
        with _lab(LAB, "--fresh") as told:
            cold.append(told["seconds"])
        swarm.down(LAB)
        took, told = _up(LAB)
        swarm.down(LAB)
        answered.append(took - (told["seconds"] - told["api_seconds"]))
        proved.append(took)
    return [
        Figure("up, restored: to the answering API", "s", answered, cold, "1.5 s"),
        Figure("up, restored: with its proof", "s", proved, cold, "3 s, ratio 0.05"),
    ]


def _further_labs(rounds: int) -> list[Figure]:
    """memory of three more labs beside a first"""
    import psutil

    names = [LAB, *(f"{LAB}-{i}" for i in range(1, 4))]
    own: list[list[float]] = [[] for _ in names]
    for _ in range(min(rounds, 3)):
        try:
            for name in names:
                _up(name)
            for at, name in enumerate(names):
                own[at].append(psutil.Process(_connection(name).pid).memory_full_info().uss / 1e6)
        finally:
            for name in names:
                swarm.down(name)
    further = [value for values in own[1:] for value in values]
    return [Figure("a further lab's own memory", "MB", further, [], "250 MB")]


def _cold_on_an_engine(rounds: int) -> list[Figure]:
    """three nodes on a running engine, cold, beside plain_up.sh"""
    ours, plain = [], []
    with _lab(LAB):
        there = {**_connection(LAB).environment, "IMAGE": images.name(engines.DEFAULT_DOCKER)}
        for _ in range(rounds):
            try:
                ours.append(_seconds([LABKIT, "up", "--lab", "beside"], **there))
            finally:
                subprocess.run(
                    [LABKIT, "down", "--lab", "beside"],
                    env={**os.environ, **there},
                    capture_output=True,
                    check=False,
                )
            plain.append(_seconds([paths.PLAIN_UP, "3"], **there))
            _seconds(["docker", "rm", "--force", "--volumes", "plain1", "plain2", "plain3"], **there)
            _seconds(["docker", "network", "rm", "plain"], **there)
    return [Figure("swarm of 3, cold, on a running engine", "s", ours, plain, "ratio 0.6")]


def _probes(rounds: int) -> list[Figure]:
    """commands over the nodes, beside docker exec"""
    ours, plain = [], []
    argv = ["ip", "-json", "neigh"]
    with _lab(LAB):
        lab = swarm.get(LAB)
        nodes = list(lab.nodes.values())
        there = lab.engine.environment
        for _ in range(rounds):
            began = time.monotonic()
            captures = lab.run_all([(nodes[i % len(nodes)].place, argv) for i in range(PROBES)])
            ours.append(time.monotonic() - began)
            assert all(capture.ok for capture in captures)
            began = time.monotonic()
            for i in range(PROBES):
                box = nodes[i % len(nodes)].container
                _seconds(["docker", "exec", box, *argv], **there)
            plain.append(time.monotonic() - began)
        lab.close()
    return [Figure(f"{PROBES} probes over the nodes", "s", ours, plain, "ratio 0.25")]


def _size(nodes: int) -> dict[str, float]:
    """Measure a swarm of a size: cold and restored up, and the memory that its machine uses."""
    more = ("--nodes", str(nodes))
    with _lab(LAB, "--fresh", *more) as told:
        cold = told["seconds"]
    with _lab(LAB, *more) as told:
        lab = swarm.get(LAB)
        free = lab.manager.run(["free", "--mebi"]).check().stdout.splitlines()[1].split()
        lab.close()
        return {"nodes": nodes, "cold": cold, "restored": told["seconds"], "memory_mb": int(free[2])}


def slope(rows: Sequence[dict[str, float]], of: str) -> float:
    """Return what one more node costs, by a straight line through the sizes."""
    fit = statistics.linear_regression([row["nodes"] for row in rows], [row[of] for row in rows])
    return fit.slope


def table(record: dict[str, Any]) -> str:
    """Write the figures as a Markdown table."""
    lines = ["| figure | labkit | beside | ratio | goal |", "|---|---|---|---|---|"]
    for row in record["figures"]:
        beside = f"{row['median_of_theirs']:.3g} {row['unit']}" if row["theirs"] else ""
        ratio = f"{row['ratio']:.3f}" if row["ratio"] is not None else ""
        low, high = min(row["ours"]), max(row["ours"])
        ours = f"{row['median']:.3g} {row['unit']} ({low:.3g} to {high:.3g})"
        lines.append(f"| {row['name']} | {ours} | {beside} | {ratio} | {row['goal']} |")
    if not record["sizes"]:
        return "\n".join(lines)
    node = slope(record["sizes"], "memory_mb")
    lines.append(f"| one more node: memory | {node:.0f} MB | | | 170 MB |")
    return "\n".join(lines)


def plot(record: dict[str, Any], target: Path) -> None:
    """Draw up time and memory against the number of nodes."""
    import matplotlib.pyplot as plt

    rows = record["sizes"]
    nodes = [row["nodes"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    series: list[tuple[Any, str, str, str, Callable[[float], str]]] = [
        (axes[0], "cold", "made", "o-", "{:.0f} s".format),
        (axes[0], "restored", "restored", "s--", "{:.1f} s".format),
        (axes[1], "memory_mb", "in use in the machine", "o-", "{:.0f} MB".format),
    ]
    for axis, of, label, style, form in series:
        values = [row[of] for row in rows]
        axis.plot(nodes, values, style, label=label)
        for at, value in zip(nodes, values, strict=True):
            above = {"textcoords": "offset points", "ha": "center"}
            axis.annotate(form(value), (at, value), (0, 7), **above)
        axis.margins(x=0.1, y=0.15)
    axes[0].set(xlabel="nodes", ylabel="labkit up, seconds", xticks=nodes)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(loc="upper left")
    axes[1].set(xlabel="nodes", ylabel="memory, MB", xticks=nodes)
    axes[1].set_ylim(bottom=0)
    axes[1].set_title(f"{slope(rows, 'memory_mb'):.0f} MB for each more node", fontsize="medium")
    figure.savefig(target, dpi=110)
    plt.close(figure)
