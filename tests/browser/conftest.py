"""JupyterLab as `labkit lab` opens it, on recorded answers, and a real browser without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from labkit import paths
from tests import BIN
from tests.jupyter import chromium, serving


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`labkit lab` on recorded answers: JupyterLab's URL with the token, and the learner's folder."""
    base = tmp_path_factory.mktemp("jupyter")
    folder = base / "labs"
    env = {
        **os.environ,
        # What is open in the browser is remembered there, not with the user's own pages.
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
        "LABKIT_REPLAY": str(paths.EVIDENCE),
    }
    argv = [BIN, "lab", folder, "--no-browser"]
    with serving(argv, log=base / "jupyter.log", env=env, cwd=base) as url:
        yield url, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser without a window."""
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, jupyter: tuple[str, Path]) -> Iterator[Page]:
    """A page that remembers nothing of the one before it; the kernels it started end with it."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    yield page
    page.goto("about:blank")  # JupyterLab would start another kernel for a session that has ended
    server, _, token = jupyter[0].partition("/lab?")
    for session in page.request.get(f"{server}/api/sessions?{token}").json():
        page.request.delete(f"{server}/api/sessions/{session['id']}?{token}")
    page.close()
