"""Slides in a real browser: keys turn them, nothing is cut off, and a PDF has a slide on each page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from labkit import paths
from labkit.authoring import release
from tests import decks
from tests.jupyter import chromium

LABS = release.find_labs(paths.SOURCES)
# How far the slide's text goes beyond its box, in pixels, and the smallest of its letters.
LOOK = """() => {
  const slide = document.querySelector(".slide:not([hidden])");
  const boxes = [slide, slide.querySelector(".body")].map((one) => one.scrollHeight - one.clientHeight);
  const texts = [...slide.querySelectorAll("*")].filter(
    (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return {
    number: slide.querySelector(".page").innerText,
    over: Math.max(...boxes, slide.scrollWidth - slide.clientWidth),
    smallest: Math.min(...texts.map((one) => parseFloat(getComputedStyle(one).fontSize))),
  };
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a projector's size."""
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1280, "height": 720})


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_slides(lab: Path, page: Page, tmp_path: Path) -> None:
    file = tmp_path / f"{lab.stem}.html"
    file.write_text(decks.deck(lab, decks.executed(lab)), encoding="utf-8")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    count = page.locator(".slide").count()
    for number in range(1, count + 1):
        seen = page.evaluate(LOOK)
        assert seen["number"] == f"{number} / {count}"
        assert seen["over"] <= 1, f"slide {number}"
        assert seen["smallest"] >= 24, f"slide {number}"
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(LOOK)["number"] == f"{max(count - 1, 1)} / {count}"
    page.keyboard.press("Home")
    assert page.evaluate(LOOK)["number"] == f"1 / {count}"
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == count
    assert not [address for address in asked if not address.startswith(("file:", "data:"))]
