"""The start page, where a learner begins: what is there, where it leads, and who can use it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from playwright.sync_api import Page, expect

from labkit import paths
from labkit.nbgrader_cells import Role, role_of
from tests.jupyter import (
    Heard,
    complaints,
    every_look,
    faults_for_everybody,
    keep_picture,
    wait_for_kernel,
)

Jupyter = tuple[str, Path]
HINTED, OTHER = (
    json.loads(path.read_text())["cells"][0]["source"][0].removeprefix("# ").strip()
    for number in ("03", "05")
    for path in paths.RELEASE.glob(f"{number}_*.ipynb")
)
WORKSPACES = itertools.count()  # what was open in one is not in the next


def arrive(page: Page, url: str) -> Heard:
    """Open JupyterLab for the first time, until the start page lists the labs."""
    heard = Heard(page)
    page.goto(url.replace("/lab?", f"/lab/workspaces/{next(WORKSPACES)}?"), timeout=120_000)
    page.locator("#labkit-start .labkit-lab").first.wait_for(timeout=120_000)
    return heard


def test_the_first_visit_is_a_list_of_labs_and_a_way_on(page: Page, jupyter: Jupyter) -> None:
    url, folder = jupyter
    heard = arrive(page, url)
    titles = page.locator("#labkit-start .labkit-title")
    released = sorted(paths.RELEASE.glob("*.ipynb"))
    first = [json.loads(path.read_text())["cells"][0]["source"][0] for path in released]
    assert titles.all_inner_texts() == [line.removeprefix("# ").strip() for line in first]
    expect(page.locator("#labkit-start .labkit-state")).to_contain_text("recorded answers")
    expect(page.locator("#labkit-swarm .labkit-state")).to_contain_text("recorded answers")
    for stranger in ("Create Assignment", "Formgrader", "Assignment List", "Launcher"):
        expect(page.get_by_text(stranger)).to_have_count(0)

    page.get_by_role("button", name="Begin with 00").press("Enter")
    page.get_by_role("tab", name=released[0].name).wait_for(timeout=60_000)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    assert not heard.strangers(url)
    assert not heard.complaints
    assert not complaints(folder.parent / "jupyter.log")


def test_nothing_is_asked_while_nobody_is_there(page: Page, jupyter: Jupyter) -> None:
    page.clock.install()
    arrive(page, jupyter[0])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    card = page.locator("#labkit-swarm .labkit-card")
    expect(card).not_to_contain_text("Paused")
    page.clock.fast_forward("06:00")
    expect(card).to_contain_text("Paused while you are away", timeout=60_000)
    asked.clear()
    page.clock.fast_forward("10:00")
    assert not [url for url in asked if "/labkit/swarm" in url]
    with page.expect_request("**/labkit/swarm*"):
        page.mouse.move(300, 300)
    expect(card).not_to_contain_text("Paused")


def test_who_comes_back_goes_on_where_checks_are_left(page: Page, jupyter: Jupyter) -> None:
    url, folder = jupyter
    path = folder / "03_reach_a_container.ipynb"
    before = path.read_bytes()
    notebook = json.loads(before)
    checks = [cell for cell in notebook["cells"] if role_of(cell) is Role.CHECK]
    for cell in checks[:2]:
        cell["execution_count"] = 1
    path.write_text(json.dumps(notebook))
    try:
        arrive(page, url)
        page.get_by_role("button", name="Go on with 03 Reach a container").wait_for()
        row = page.locator(".labkit-lab", has_text="Reach a container by its ingress address")
        expect(row).to_contain_text(f"2 of {len(checks)} checks passed")
    finally:
        path.write_bytes(before)


def test_everybody_can_use_it(page: Page, jupyter: Jupyter) -> None:
    url, _ = jupyter
    arrive(page, url)
    for look in every_look(page):
        assert not faults_for_everybody(page, "#labkit-start", "#labkit-swarm")
        keep_picture(page, f"start-{look}")


def test_everybody_can_use_progress(page: Page, jupyter: Jupyter) -> None:
    url, _ = jupyter
    arrive(page, url)
    page.get_by_role("button", name="Begin with 00").click()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    wait_for_kernel(page, url)
    page.get_by_role("tab", name="Progress").click()
    expect(page.locator("#labkit-progress")).to_contain_text("of 7 checks passed")
    for look in every_look(page):
        assert not faults_for_everybody(page, "#labkit-progress")
        keep_picture(page, f"progress-begun-{look}")


def test_what_was_told_is_of_the_lab_that_is_shown(page: Page, jupyter: Jupyter) -> None:
    """Labs 03 and 05 both have a question `asked`."""
    url, _ = jupyter
    arrive(page, url)
    progress = page.locator("#labkit-progress")
    for title, tab in ((HINTED, "03_reach_a_container.ipynb"), (OTHER, "05_ask_who_answers_arp.ipynb")):
        page.get_by_role("tab", name="Labs").click()
        page.get_by_role("button", name=title, exact=True).click()
        page.get_by_role("tab", name=tab).wait_for(timeout=60_000)
        wait_for_kernel(page, url)
        if title == HINTED:
            page.get_by_role("tab", name="Progress").click()  # once: a second click folds it
            progress.get_by_role("button", name="Hint for asked").click()
            expect(progress).to_contain_text("Hint 1:", timeout=60_000)
    expect(progress.get_by_role("heading")).to_contain_text("05 ask who")
    expect(progress).not_to_contain_text("Hint 1:")
    page.get_by_role("tab", name="03_reach_a_container.ipynb").click()
    expect(progress).to_contain_text("Hint 1:")
