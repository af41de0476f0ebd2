"""A learner's own way: JupyterLab in a real browser, Run All, to the notebook's end.

The answers are the recorded ones that the kit ships: what a lab does on a live swarm is tested in
tests/live, and this is about the page.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from labkit import paths
from labkit.authoring import release
from tests import BIN
from tests.jupyter import serving

NOTEBOOKS = [f"{p.stem}.ipynb" for p in release.find_labs(paths.SOURCES)]
# Chromium's own calls home must not leave this machine; root has no browser sandbox.
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run", "--disable-gpu"]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`labkit lab` on recorded answers: JupyterLab's URL with the token, and the learner's folder."""
    base = tmp_path_factory.mktemp("jupyter")
    folder = base / "labs"
    env = {
        **os.environ,
        # What is open in the browser is remembered there, not with the user's own pages.
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "LABKIT_REPLAY": str(paths.EVIDENCE),
    }
    argv = [BIN, "lab", folder, "--no-browser"]
    with serving(argv, log=base / "jupyter.log", env=env, cwd=base) as url:
        yield url, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser without a window."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, jupyter: tuple[str, Path]) -> Iterator[Page]:
    """A page that remembers nothing of the one before it; the kernels it started end with it."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    yield page
    server, _, token = jupyter[0].partition("/lab?")
    for session in page.request.get(f"{server}/api/sessions?{token}").json():
        page.request.delete(f"{server}/api/sessions/{session['id']}?{token}")
    page.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_of_an_untouched_lab_comes_to_its_end(
    name: str, page: Page, jupyter: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = jupyter
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # A workspace of its own, so that JupyterLab does not open the lab before it as well.
    own_page = f"/lab/workspaces/{Path(name).stem}/tree/{name}?"
    page.goto(url.replace("/lab?", own_page), timeout=120_000)
    page.get_by_role("tab", name=name).wait_for(timeout=120_000)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
    wait_for_kernel(page, url)
    run_all(page)
    cells: list[nbformat.NotebookNode] = []
    deadline = time.monotonic() + 300
    while not cells and time.monotonic() < deadline:
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+s")
        cells = cells_that_ran(folder / name)
    page.screenshot(path=tmp_path / "page.png")
    assert cells
    # The page calls nobody but its own server, and does not send that one for news of JupyterLab.
    own = url.partition("/lab?")[0]
    assert any(address.startswith(own) for address in asked)
    assert not [address for address in asked if not address.startswith((own, "data:", "blob:"))]
    assert not [address for address in asked if "announcements" in address]
    for cell in cells:
        errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
        # Nobody has answered yet, and the checks say so; nothing else may fail.
        assert not errors or "raises-exception" in cell.metadata.get("tags", []), errors


def wait_for_kernel(page: Page, url: str) -> None:
    """Wait until the notebook's kernel has answered: before, Run All has JupyterLab ask which one.

    A question that it asks at its start is answered meanwhile.
    """
    which = page.locator(".jp-Dialog .jp-mod-accept")
    page.add_locator_handler(which, which.click, no_wait_after=True)
    server, _, token = url.partition("/lab?")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        sessions = page.request.get(f"{server}/api/sessions?{token}").json()
        if [s for s in sessions if s["kernel"] and s["kernel"]["execution_state"] == "idle"]:
            page.get_by_text(re.compile(r"Python 3 .*\| Idle")).wait_for(timeout=120_000)
            return
        page.wait_for_timeout(500)
    raise AssertionError("the notebook has no kernel that answers")


def run_all(page: Page) -> None:
    """Click Run All until cells wait or run: while it still connects, JupyterLab drops the wish."""
    for _ in range(20):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        taken = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]"))
        with contextlib.suppress(PlaywrightTimeout):
            taken.first.wait_for(timeout=8_000)
            return
    raise AssertionError("no cell ran after twenty clicks on Run All")


def cells_that_ran(path: Path) -> list[nbformat.NotebookNode]:
    """Return the cells of a notebook once every one with something to run was run; none before."""
    try:
        cells: list[nbformat.NotebookNode] = nbformat.read(path, as_version=4).cells
    except nbformat.reader.NotJSONError:
        return []  # JupyterLab is just writing it
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return cells if all(cell.execution_count for cell in code) else []
