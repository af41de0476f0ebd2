"""The same lab many times: nothing grows, neither on the disk nor in the process that does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from labkit import swarm
from labkit.progress import Bars
from tests.soak.home import Home
from tests.soak.results import Part

LAB = "soak-cycles"
# What counts as growth, from a few rounds after the beginning to the end.
_MOST_MEMORY = 16e6  # bytes of this process; an allocator keeps what it had once
_MOST_DISK = 4e6  # bytes of the home: logs of QEMU, a record more
_SETTLE_SECONDS = 15.0
_WARM = 5  # rounds until every module is loaded and every pool is there


@dataclass(frozen=True)
class Load:
    """What the work takes: of this process memory, descriptors, threads; of the home the rest."""

    memory: int
    descriptors: int
    threads: int
    disk: int
    processes: int

    @classmethod
    def now(cls, home: Home) -> Load:
        """Measure it."""
        me = psutil.Process()
        files = [path.stat().st_blocks * 512 for path in home.directory.rglob("*") if path.is_file()]
        return cls(
            memory=me.memory_info().rss,
            descriptors=me.num_fds(),
            threads=me.num_threads(),
            disk=sum(files),
            processes=len(home.processes()),
        )

    def growth(self, later: Load) -> str:
        """Say what has grown since, "" where nothing has."""
        grown = []
        for name in ("descriptors", "threads", "processes"):
            before, after = getattr(self, name), getattr(later, name)
            if after > before:
                grown.append(f"{name} {before} -> {after}")
        for name, most in (("memory", _MOST_MEMORY), ("disk", _MOST_DISK)):
            before, after = getattr(self, name), getattr(later, name)
            if after - before > most:
                grown.append(f"{name} {before / 1e6:.0f} -> {after / 1e6:.0f} MB")
        return ", ".join(grown)


def run(home: Home, ups: int, resets: int, seed: int) -> None:
    """Bring a lab up and down, then reset it, many times in this process."""
    part = Part("cycles", ups + resets, seed)
    swarm.down(LAB)
    _repeat(part, home, "up and down", ups, _up_and_down)
    swarm.up(LAB, engine="vm", progress=Bars()).lab.close()
    _repeat(part, home, "reset", resets, _reset)
    swarm.down(LAB)
    left = home.left()
    part.tried("what is left", ", ".join(left))


def _up_and_down() -> None:
    up = swarm.up(LAB, engine="vm", progress=Bars())
    up.lab.close()
    swarm.down(LAB)


def _reset() -> None:
    swarm.reset(LAB, progress=Bars()).lab.close()


def _repeat(part: Part, home: Home, what: str, count: int, once: Callable[[], None]) -> None:
    """Do one thing many times; the last row tells what it took at first and at the end."""
    first: Load | None = None
    times: list[float] = []
    for number in range(1, count + 1):
        began, problem = time.monotonic(), ""
        try:
            once()
        except Exception as caught:
            problem = f"{type(caught).__name__}: {caught}"
        times.append(time.monotonic() - began)
        figures = {}
        if number == _WARM:
            first = Load.now(home)
        if first and (number == count or number % 25 == 0):
            last = _settled(home, first)
            problem = problem or first.growth(last)
            figures = _figures(first, last, times)
        part.tried(what, problem, seconds=round(times[-1], 1), figures=figures)


def _settled(home: Home, first: Load) -> Load:
    """Measure the load when it has come to rest: threads of a lab that was left end a moment later."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (last := Load.now(home)) and first.growth(last) and time.monotonic() < deadline:
        time.sleep(0.5)
    return last


def _figures(first: Load, last: Load, times: list[float]) -> dict[str, str]:
    middle = sorted(times)[len(times) // 2]
    return {
        "median time": f"{middle:.1f} s",
        "memory of the process": f"{first.memory / 1e6:.0f} to {last.memory / 1e6:.0f} MB",
        "descriptors": f"{first.descriptors} to {last.descriptors}",
        "threads": f"{first.threads} to {last.threads}",
        "processes": f"{first.processes} to {last.processes}",
        "disk": f"{first.disk / 1e6:.0f} to {last.disk / 1e6:.0f} MB",
    }
