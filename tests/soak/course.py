"""A class at once: each learner's own swarm, one lab in a browser, handed in, marked, given back.

All log in at one hub on this machine and work at the same time. They are accounts of this machine, so
only root can run it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import nbformat
import psutil
from nbformat import NotebookNode
from playwright.sync_api import Page, expect

from labkit import paths
from labkit.authoring import release
from labkit.nbgrader_cells import Role, question_of, role_of
from tests import hub as hubs
from tests.hub import Hub, home, machine_of
from tests.jupyter import chromium, run_all, wait_for_kernel, wait_until_run
from tests.soak.results import Figures, Part

LEARNERS = [f"lk-test-{name}" for name in ("ada", "bob", "eve", "joe")]
INSTRUCTOR = "lk-test-grace"
SOURCE = next(paths.SOURCES.glob("03_*.md"))
LAB = SOURCE.stem
SOON = 600_000  # ms: everybody wants the processors at once
RUN_S = 2400.0

Pages = dict[str, Page]


def run(seed: int) -> None:
    """Let a class work on one lab; a step that fails for one learner ends it."""
    part = Part("class", 6 * len(LEARNERS), seed)
    pages: Pages = {}
    marks: list[dict[str, Any]] = []
    with hubs.running(LEARNERS, INSTRUCTOR) as hub, chromium() as browser:
        steps: dict[str, Callable[[], Figures | None]] = {
            "logs in and starts a swarm": lambda: _start(
                {login: pages.setdefault(login, hub.arrive(browser, login)) for login in LEARNERS}
            ),
            f"runs lab {LAB[:2]} with an answer to each question of code": lambda: _work(hub, pages),
            "hands it in by a click": lambda: _hand_in(hub, pages),
            "reaches nothing of the next one's": lambda: _reach(hub),
            "is marked, and has the page of it": lambda: marks.extend(_mark(hub, pages)),
            "is right in each question of code": lambda: _right(marks),
        }
        part.in_turn(steps, times=len(LEARNERS))


def _start(pages: Pages) -> Figures:
    began = time.monotonic()
    for page in pages.values():
        page.locator("#labkit-start").get_by_role("button", name="Start the swarm").click()
    for page in pages.values():
        expect(page.locator("#labkit-swarm .labkit-node")).to_have_count(3, timeout=SOON)
    return {"all of them after": f"{time.monotonic() - began:.1f} s"}


def _work(hub: Hub, pages: Pages) -> Figures:
    hub.teaches(INSTRUCTOR, "class", "open", LAB[:2])
    for login, page in pages.items():
        _answer(login)
        url = f"{hub.url}/user/{login}/lab"
        page.goto(f"{url}/tree/{LAB}.ipynb")
        wait_for_kernel(page, f"{url}?")
    before = _memory()
    began = time.monotonic()
    for page in pages.values():
        run_all(page)
    for login, page in pages.items():
        wait_until_run(page, home(login) / "labkit-labs" / f"{LAB}.ipynb", seconds=RUN_S)
    return {
        "all of them after": f"{(time.monotonic() - began) / 60:.1f} min",
        "MB of a lab's own before": before,
        "and after it": _memory(),
    }


def _answer(login: str) -> None:
    """Write an answer to each question of code into a learner's copy, whose owner stays the same."""
    path = home(login) / "labkit-labs" / f"{LAB}.ipynb"
    copy = nbformat.read(path, as_version=4)
    solved = _answers(release.nbgrader_source(SOURCE).cells)
    for question, cell in _answers(copy.cells).items():
        cell.source = solved[question].source
    path.write_text(nbformat.writes(copy))


def _answers(cells: Iterable[NotebookNode]) -> dict[str | None, NotebookNode]:
    return {question_of(cell): cell for cell in cells if role_of(cell) is Role.ANSWER}


def _memory() -> str:
    """Return the least and the most memory that the learners' machines have of their own."""
    sizes = [psutil.Process(machine_of(login)["pid"]).memory_full_info().uss for login in LEARNERS]
    return f"{min(sizes) / 1e6:,.0f} to {max(sizes) / 1e6:,.0f}"


def _hand_in(hub: Hub, pages: Pages) -> None:
    for page in pages.values():
        page.get_by_role("tab", name="Progress").click()
        panel = page.locator("#labkit-progress")
        panel.get_by_role("button", name="Hand it in").click()
        expect(panel).to_contain_text("Handed in at", timeout=SOON)
    collected = json.loads(hub.teaches(INSTRUCTOR, "class", "collect", "--json"))
    assert sorted(row["learner"] for row in collected) == LEARNERS
    assert not any(row["remark"] for row in collected), collected


def _reach(hub: Hub) -> None:
    for login, other in zip(LEARNERS, LEARNERS[1:] + LEARNERS[:1], strict=True):
        assert (had := hub.open_to(login, other, LAB)) == [], had


def _mark(hub: Hub, pages: Pages) -> list[dict[str, Any]]:
    key = ["--public-key", "signing-key.pub"]
    rows: list[dict[str, Any]] = json.loads(hub.teaches(INSTRUCTOR, "grade", ".", *key, "--json"))
    for row in rows:
        assert not row["problem"], f"{row['student']}: {row['problem']}"
        assert row["evidence"] == "signed", f"{row['student']}: {row['evidence']}"
    assert sorted(row["student"] for row in rows) == LEARNERS
    hub.teaches(INSTRUCTOR, "feedback", ".")
    told = hub.teaches(INSTRUCTOR, "class", "return")
    assert f"given back: {len(LEARNERS)}" in told, told
    for login, page in pages.items():
        page.get_by_role("tab", name="Labs").click()
        page.get_by_role("button", name="Fetch what was marked").click()
        given = page.get_by_role("region", name="Given back")
        expect(given.get_by_role("button")).to_have_count(1, timeout=SOON)
        assert login in (home(login) / "labkit-labs" / "feedback" / f"{LAB}.html").read_text()
    return rows


def _right(rows: list[dict[str, Any]]) -> Figures:
    """The solutions are right on each learner's own swarm, on a machine as busy as this too."""
    for row in rows:
        # What is asked in words nobody answered here, and a person would read.
        judged = [q for q in row["questions"] if not q["in_words"]]
        wrong = {q["id"]: q["message"] for q in judged if q["status"] != "pass"}
        assert not wrong, f"{row['student']}: {wrong}"
    return {"points": f"{rows[0]['points']:g} of {rows[0]['max']:g}"}
