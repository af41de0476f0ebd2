"""Takes the pictures of the page from a live run: docs/page.png, docs/progress.png and docs/swarm.gif.

    .venv/bin/python docs/gallery.py

It stands up a swarm of its own, opens the page in Chromium, and does by click what the animation shows:
a service is scaled from two tasks to five, one of them is killed, Swarm replaces it, and a request is
followed on its way.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from labkit import swarm  # noqa: E402
from tests import BIN  # noqa: E402
from tests.jupyter import FLAGS, serving  # noqa: E402

LAB = "gallery"
SIZE = {"width": 1280, "height": 720}
SMALL = (960, 540)
PATIENCE = 120_000  # ms


class Film:
    """Frames of a page, each shown for a while."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.shown: list[int] = []

    def take(self, ms: int) -> None:
        """Add what the page shows now; a frame like the one before only makes that one longer."""
        shot = self.page.screenshot()
        frame = Image.open(io.BytesIO(shot)).convert("RGB").resize(SMALL, Image.Resampling.LANCZOS)
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.shown[-1] = min(self.shown[-1] + ms, 2000)
            return
        self.frames.append(frame)
        self.shown.append(ms)

    def until(self, text: str) -> None:
        """Take frames until the panel holds a text."""
        panel = self.page.locator("#labkit-swarm")
        for _ in range(PATIENCE // 500):
            self.take(400)
            if text in panel.inner_text():
                return
            self.page.wait_for_timeout(500)
        raise AssertionError(f"{text!r} did not come")

    def write(self, path: Path) -> None:
        """Write the animation."""
        colours = [frame.quantize(64, dither=Image.Dither.NONE) for frame in self.frames]
        first, *others = colours
        first.save(
            path, save_all=True, append_images=others, duration=self.shown, loop=0, optimize=True
        )


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        base = Path(directory)
        env = {**os.environ, "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces")}
        env["JUPYTERLAB_SETTINGS_DIR"] = str(base / "settings")
        argv = [BIN, "lab", base / "labs", "--no-browser", "--engine", "vm", "--lab", LAB]
        try:
            with serving(argv, log=base / "log", env=env, cwd=base) as url:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=FLAGS
                )
                take(browser.new_page(viewport=SIZE), url)
                browser.close()
        finally:
            swarm.down(LAB)


def take(page: Page, url: str) -> None:
    """Do what the pictures show."""
    lab = swarm.get(LAB)
    lab.network("shop")
    lab.service("web", replicas=2, publish="8080:3000", networks="shop")
    page.goto(url)
    panel = page.locator("#labkit-swarm")
    expect(panel).to_contain_text("web 2 of 2 run", timeout=PATIENCE)
    page.wait_for_timeout(1000)
    page.screenshot(path=HERE / "page.png")
    page.get_by_role("button", name="Begin with 00").click()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=PATIENCE)
    page.wait_for_timeout(3000)
    film = Film(page)
    film.take(1500)
    for count in (3, 4, 5):
        panel.get_by_role("button", name=f"Scale up web to {count}").click()
        film.until(f"of {count} run")
    film.until("5 of 5 run")
    film.take(1500)
    panel.locator("summary", has_text="web.1 running").click()
    film.take(1200)
    panel.get_by_role("button", name="Kill it: web.1").click()
    film.until("web.1 failed")
    film.until("5 of 5 run")
    film.take(1500)
    panel.get_by_role("button", name="Follow a request to web").click()
    way = panel.get_by_role("list", name="The way of the request").get_by_role("listitem")
    for step in range(3):
        way.nth(step).wait_for()
        way.nth(step).scroll_into_view_if_needed()
        film.take(1200)
    film.take(2000)
    film.write(HERE / "swarm.gif")
    page.get_by_role("tab", name="Progress").click()
    page.locator("#labkit-progress").get_by_text("of 7 checks passed").wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / "progress.png")
    lab.close()


if __name__ == "__main__":
    main()
