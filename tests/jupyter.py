"""Starts a command that becomes JupyterLab, finds the address that it prints, and works there."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from labkit import paths

PICTURES = paths.REPOSITORY / "build" / "pictures"
"""Where the pages that the tests have seen are kept as pictures, for people to look at."""

# Chromium's own calls home must not leave this machine; root has no browser sandbox.
_FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-sync"]
_FLAGS += ["--disable-component-update", "--no-first-run", "--disable-gpu"]

# What a terminal's canvas says of a machine without a graphics card, and a busy machine of the page.
_NOISE = re.compile(r"GL Driver Message|task queue exceeded")
# What Jupyter's server says of its own making, whoever starts it.
# A name that begins with .~ is of the file that it is just writing: who lists the folder then hears so.
_SAID = re.compile(r"websocket_ping_timeout|is not trusted|Nudge: attempt|/\.~\S+ doesn't exist")

# A page that is loaded anew closes its socket just when Jupyter's server writes to it: Tornado tells
# that as a task whose error nobody took.
_RELOADED = re.compile(
    r"^Task exception was never retrieved\nfuture: .*write_message.*WebSocketClosedError.*\n"
    r"(?:.*\n)+?tornado\.websocket\.WebSocketClosedError\n",
    re.MULTILINE,
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A real browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path, seconds: float = 120
) -> Iterator[str]:
    """Run a command until the body has ended; gives the address with its token.

    What the command prints goes to `log`. Fails where it ends, or prints no address in time.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=env, cwd=cwd)
    try:
        deadline = time.monotonic() + seconds
        found = None
        while not found and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text())
            time.sleep(0.2)
        assert found, log.read_text()
        yield found[0]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


class Heard:
    """What a page asked for, and what its browser complained of."""

    def __init__(self, page: Page) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not _NOISE.search(message.text):
            self.complaints.append(message.text)

    def strangers(self, url: str) -> list[str]:
        """Return the addresses outside of the page's own server that were asked for."""
        own = url.partition("/lab?")[0]
        return [one for one in self.asked if not one.startswith((own, "data:", "blob:"))]


def complaints(log: Path) -> list[str]:
    """Return what a server's log says of errors and warnings."""
    lines = _RELOADED.sub("", log.read_text()).splitlines()
    found = [line for line in lines if re.match(r"\[[WEC] |Traceback|\w+Error", line)]
    return [line for line in found if not _SAID.search(line) and not line.endswith("ServerApp] ")]


def keep_picture(page: Page, name: str) -> None:
    """Keep what a page shows now as PICTURES/NAME.png, and as NAME-grey.png without its colours."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")
    browser = page.context.new_cdp_session(page)
    for seen, kept in (("achromatopsia", f"{name}-grey"), ("none", "")):
        browser.send("Emulation.setEmulatedVisionDeficiency", {"type": seen})
        if kept:
            page.screenshot(path=PICTURES / f"{kept}.png")
    browser.detach()


def faults_for_everybody(page: Page, *parts: str) -> list[str]:
    """Return what axe finds in parts of a page: rule, why, and the element."""
    found = Axe().run(page, context={"include": [[part] for part in parts]})
    return [
        f"{rule['impact']}: {rule['help']}: {node['html'][:200]}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


def every_look(page: Page) -> Iterator[str]:
    """Show a page of JupyterLab dark and light, on a projector and a laptop; yields what to call it.

    At the end it is light again, and has the size that it had.
    """
    before = page.viewport_size
    for theme in ("Dark", "Light"):
        page.get_by_role("menuitem", name="Settings", exact=True).click()
        for item in ("Theme", f"JupyterLab {theme}"):
            page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()
        light = page.locator(f"body[data-jp-theme-light='{'true' if theme == 'Light' else 'false'}']")
        light.wait_for(state="attached", timeout=60_000)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        for width, height in ((1920, 1080), (1366, 768)):
            page.set_viewport_size({"width": width, "height": height})
            yield f"{width}-{theme.lower()}"
    if before:
        page.set_viewport_size(before)


def wait_for_kernel(page: Page, url: str) -> None:
    """Wait until the notebook's kernel has answered: before, Run All has JupyterLab ask which one.

    A question that it asks at its start is answered meanwhile.
    """
    which = page.locator(".jp-Dialog", has_text="Kernel").locator(".jp-mod-accept")
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


def run_to_the_end(page: Page, path: Path, *, seconds: float = 300) -> None:
    """Run all cells of the lab that is open, and wait as `wait_until_run` does."""
    run_all(page)
    wait_until_run(page, path, seconds=seconds)


def wait_until_run(page: Page, path: Path, *, seconds: float) -> None:
    """Save the lab that is open as `path` until each of its cells was run.

    Fails where one failed that is not a check of an answer: nobody has answered yet, and they say so.
    """
    cells: list[nbformat.NotebookNode] = []
    deadline = time.monotonic() + seconds
    while not cells and time.monotonic() < deadline:
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+s")
        cells = _cells_that_ran(path)
    assert cells, f"not every cell of {path.name} ran in {seconds:.0f} s"
    for cell in cells:
        errors = [out for out in cell.get("outputs", []) if out.output_type == "error"]
        assert not errors or "raises-exception" in cell.metadata.get("tags", []), errors


def _cells_that_ran(path: Path) -> list[nbformat.NotebookNode]:
    """Return the cells of a notebook once every one with something to run was run; none before."""
    try:
        cells: list[nbformat.NotebookNode] = nbformat.read(path, as_version=4).cells
    except nbformat.reader.NotJSONError:
        return []  # JupyterLab is just writing it
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return cells if all(cell.execution_count for cell in code) else []
