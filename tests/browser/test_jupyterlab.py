"""A learner's own way: JupyterLab in a real browser, Run All, to the notebook's end.

The answers are the recorded ones that the kit ships: what a lab does on a live swarm is tested in
tests/live, and this is about the page.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from labkit import paths
from labkit.authoring import release
from tests.jupyter import every_look, keep_picture, run_to_the_end, wait_for_kernel

NOTEBOOKS = [f"{p.stem}.ipynb" for p in release.find_labs(paths.SOURCES)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_of_an_untouched_lab_comes_to_its_end(
    name: str, page: Page, jupyter: tuple[str, Path]
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
    run_to_the_end(page, folder / name)
    figure = page.locator(".jp-OutputArea img").first
    for look in every_look(page):
        if figure.count():
            figure.evaluate("one => one.scrollIntoView({block: 'center'})")
        keep_picture(page, f"lab-{Path(name).stem}-{look}")
    # The page calls nobody but its own server, and does not send that one for news of JupyterLab.
    own = url.partition("/lab?")[0]
    assert any(address.startswith(own) for address in asked)
    assert not [address for address in asked if not address.startswith((own, "data:", "blob:"))]
    assert not [address for address in asked if "announcements" in address]
