"""The report and the page about a class in a real browser: for everybody, on screens and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from labkit.authoring import report
from labkit.grading import overview
from tests import reports
from tests.jupyter import faults_for_everybody, keep_picture

PAGES = ("index.html", "03_reach_a_container.html", overview.NAME)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a report, and that of a class."""
    made = tmp_path_factory.mktemp("report")
    facts = {"Docker version of the nodes": "26.1.5"}
    report.write_report(reports.labs(made), made, facts=facts, statements={})
    (made / overview.NAME).write_text(overview.page(reports.klass()), encoding="utf-8")
    return made


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(browser: Browser, folder: Path, name: str) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1366, "height": 900}, color_scheme=scheme)
        loaded: list[str] = []
        page.on("requestfinished", lambda request, loaded=loaded: loaded.append(request.url))
        page.goto((folder / name).as_uri())
        assert not faults_for_everybody(page, "body")
        for width in (400, 1366, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} at {width} in the {scheme}"
            keep_picture(page, f"report-{Path(name).stem}-{width}-{scheme}")
        # What a notebook's output asks another host for is refused by the page's own policy.
        assert not [url for url in loaded if not url.startswith(("file:", "data:"))]
        page.close()


def test_what_is_folded_is_on_paper(browser: Browser, folder: Path) -> None:
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    folded = page.get_by_text("10.0.1.39").first
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()
    page.close()
