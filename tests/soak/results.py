"""The soak's results: kept in a file as soon as something was tried, and shown as a page."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import engines, files, paths

FILE = Path(__file__).with_name("results.json")
PAGE = paths.REPOSITORY / "docs" / "reliability.md"
TITLES = {
    "kills": "Commands killed at a random moment",
    "engine": "The engine goes away",
    "side": "Side by side",
    "cycles": "Many times",
    "rest": "A lab rests",
    "faults": "Faults, injected and mended",
    "diagnosis": "Faults, named by a diagnosis that is not told of them",
    "server": "A class on a bare Debian server",
    "class": "A class at once, on one machine",
    "hosts": "Labs on three machines of one's own",
    "fuzz": "Bad input",
}
Figures = dict[str, str]
"""What was measured in a try: what it is called, and the value in words."""

_BLOCK = re.compile(r"(<!-- soak -->\n).*(<!-- /soak -->)", re.DOTALL)


@dataclass
class Part:
    """What was tried of one part: rows of what was done, and what came of it."""

    name: str
    asked: int
    seed: int
    more: bool = False
    """Whether what an earlier run has tried counts too; it may have been interrupted."""
    began: float = field(default_factory=time.time)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        earlier = read().get(self.name, {}) if self.more else {}
        self._before: int = earlier.get("tried", 0)
        self._lost: list[dict[str, Any]] = earlier.get("lost", [])
        self._by: dict[str, dict[str, Any]] = earlier.get("by", {})
        self._minutes: float = earlier.get("minutes", 0.0)

    @property
    def count(self) -> int:
        """How many tries there were."""
        return self._before + sum(row["times"] for row in self.rows)

    def kinds(self) -> dict[str, dict[str, Any]]:
        """Return what was tried by kind: how often, how often it survived, and its figures."""
        return _by_kind(self.rows, self._by)

    def tried(self, what: str, problem: str, *, times: int = 1, **more: Any) -> None:
        """Note one try, or several at once; `problem` says what was wrong, "" where all held."""
        self.rows.append({"what": what, "problem": problem, "times": times, **more})
        print(f"{self.name} {self.count}/{self.asked}: {what} {more}: {problem or 'held'}", flush=True)
        self.keep()

    def in_turn(self, steps: Mapping[str, Callable[[], Figures | None]], *, times: int = 1) -> None:
        """Try one step after another, each for so many; one that fails is the last."""
        for what, step in steps.items():
            try:
                figures = step() or {}
            except Exception as problem:
                self.tried(what, f"{type(problem).__name__}: {problem}"[:600], times=times)
                return
            self.tried(what, "", times=times, figures=figures)

    def keep(self) -> None:
        """Write the part into the file of the results."""
        known = read()
        lost = [*self._lost, *(row for row in self.rows if row["problem"])]
        known[self.name] = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "seed": self.seed,
            "asked": self.asked,
            "tried": self.count,
            "survived": self.count - len(lost),
            "lost": lost,
            "minutes": round(self._minutes + (time.time() - self.began) / 60, 1),
            "by": self.kinds(),
        }
        files.write_json(FILE, known)


def _by_kind(
    rows: list[dict[str, Any]], earlier: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Count the rows by what was done, on from earlier counts, with the figures of the last one."""
    kinds = {what: dict(kind) for what, kind in earlier.items()}
    for row in rows:
        kind = kinds.setdefault(row["what"], {"tried": 0, "survived": 0})
        kind["tried"] += row["times"]
        kind["survived"] += row["times"] - bool(row["problem"])
        kind.update(row.get("figures", {}))
    return kinds


def read() -> dict[str, Any]:
    """Return the parts that there are: name -> result."""
    known: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return known


def machine() -> str:
    """Describe this machine in one line."""
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 1e6
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    facts = engines.choose("vm")[0].facts()
    about = f"engine {facts['engine']}; {facts['qemu'].partition('(')[0].strip()}"
    return f"{os.cpu_count()} processors, {memory:.0f} GB of memory, {system}; {about}"


def write_page() -> None:
    """Put the results into the page."""
    known = read()
    lines = [
        "| part | asked | tried | survived | lost | minutes | date |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, title in TITLES.items():
        if part := known.get(name):
            lost = part["tried"] - part["survived"]
            numbers = [part["asked"], part["tried"], part["survived"], lost, part["minutes"]]
            lines.append(f"| {title} | {' | '.join(f'{n:,}' for n in numbers)} | {part['date']} |")
    for name, title in TITLES.items():
        if part := known.get(name):
            lines += ["", f"### {title}", "", *_SHOWN.get(name, _counts)(part)]
            lines += ["", f"*Seed {part['seed']}, {part['date']}, on {part['machine']}.*"]
    page = PAGE.read_text()
    files.write_text(PAGE, _BLOCK.sub(lambda m: m[1] + "\n" + "\n".join(lines) + "\n\n" + m[2], page))


def _counts(part: dict[str, Any]) -> list[str]:
    lines = ["| what | tried | survived |", "|---|--:|--:|"]
    for what, kind in sorted(part["by"].items()):
        lines.append(f"| {what} | {kind['tried']:,} | {kind['survived']:,} |")
    return lines + _lost(part)


def _by_version(part: dict[str, Any]) -> list[str]:
    """Show what was tried as FAULT, Docker VERSION: a row for each fault, a column for each version."""
    tried = {tuple(what.split(", Docker ")): kind for what, kind in part["by"].items()}
    releases = sorted({version for _, version in tried})
    lines = [
        f"| fault, survived of tried on Docker | {' | '.join(releases)} |",
        f"|---|{'--:|' * len(releases)}",
    ]
    for fault in sorted({fault for fault, _ in tried}):
        kinds = [tried.get((fault, version)) for version in releases]
        cells = [f"{kind['survived']:,} of {kind['tried']:,}" if kind else "" for kind in kinds]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return lines + _lost(part)


def _figures(part: dict[str, Any]) -> list[str]:
    lines = []
    for what, kind in sorted(part["by"].items()):
        figures = {k: v for k, v in kind.items() if k not in ("tried", "survived")}
        told = "; ".join(f"{name} {value}" for name, value in figures.items())
        lines.append(
            f"- **{what}**: {kind['survived']:,} of {kind['tried']:,}" + (f"; {told}" if told else "")
        )
    return lines + _lost(part)


def _lost(part: dict[str, Any]) -> list[str]:
    rows = [f"- {row['what']}: {_one_line(row['problem'])}" for row in part["lost"]]
    return ["", "Lost:", "", *rows] if rows else []


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300].replace("|", "\\|").replace("<", "\\<")


_SHOWN: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "engine": _figures,
    "side": _figures,
    "cycles": _figures,
    "rest": _figures,
    "faults": _by_version,
    "diagnosis": _by_version,
    "class": _figures,
    "hosts": _figures,
    "fuzz": _figures,
}
