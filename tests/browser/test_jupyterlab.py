"""A learner's own way: JupyterLab in a real browser, Run All, to the notebook's end.

The answers are the recorded ones that the kit ships: what a lab does on a live swarm is tested in
tests/live, and this is about the page.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from labkit import paths
from labkit.authoring import release

NOTEBOOKS = [f"{p.stem}.ipynb" for p in release.find_labs(paths.REPOSITORY / "labs" / "source")]
# Chromium's own calls home must not leave this machine; root has no browser sandbox.
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run", "--disable-gpu"]


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """JupyterLab on a copy of the learners' notebooks: its URL with the token, and the folder."""
    folder = tmp_path / "labs"
    shutil.copytree(paths.REPOSITORY / "labs" / "release", folder)
    jupyter = Path(sys.executable).with_name("jupyter")
    argv = [jupyter, "lab", "--ip", "127.0.0.1", "--no-browser", "--port-retries", "50", folder]
    if os.geteuid() == 0:
        argv.append("--allow-root")
    log = tmp_path / "jupyter.log"
    with log.open("wb") as out:
        # What is open in the browser is remembered there, not with the user's own pages.
        own = {"JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
        own["LABKIT_REPLAY"] = str(paths.REPOSITORY / "labs" / "evidence")
        process = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, **own})
    try:
        deadline = time.monotonic() + 120
        found = None
        while not found and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text())
            time.sleep(0.2)
        assert found, log.read_text()
        yield found[0], folder
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_of_an_untouched_lab_comes_to_its_end(
    name: str, jupyter: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = jupyter
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url.replace("/lab?", f"/lab/tree/{name}?"), timeout=120_000)
        page.get_by_role("tab", name=name).wait_for(timeout=120_000)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
        run_all(page)
        notebook = folder / name
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            page.wait_for_timeout(1000)
            page.keyboard.press("Control+s")
            if finished(notebook):
                break
        page.screenshot(path=tmp_path / "page.png")
        browser.close()
    assert finished(notebook)
    # The page calls nobody but its own server, and does not send that one for news of JupyterLab.
    own = url.partition("/lab?")[0]
    assert any(address.startswith(own) for address in asked)
    assert not [address for address in asked if not address.startswith((own, "data:", "blob:"))]
    assert not [address for address in asked if "announcements" in address]
    for cell in nbformat.read(notebook, as_version=4).cells:
        errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
        # Nobody has answered yet, and the checks say so; nothing else may fail.
        assert not errors or "raises-exception" in cell.metadata.get("tags", []), errors


def run_all(page: Page) -> None:
    """Click Run All until cells wait or run: while it still connects, JupyterLab drops the wish.

    Or it asks which kernel, and waits for the answer.
    """
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(timeout=120_000)
    which = page.locator(".jp-Dialog .jp-mod-accept")
    page.add_locator_handler(which, which.click)
    for _ in range(20):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        taken = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]"))
        with contextlib.suppress(PlaywrightTimeout):
            taken.first.wait_for(timeout=8_000)
            return
    raise AssertionError("no cell ran after twenty clicks on Run All")


def finished(path: Path) -> bool:
    """Whether every code cell that has something to run was run."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError:
        return False  # JupyterLab is just writing it
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    return all(cell.execution_count for cell in code)
