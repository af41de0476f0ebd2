"""Report: everything is shown, nothing is loaded from outside."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from labkit.authoring import report
from labkit.authoring.runner import CheckResult, LabResult
from labkit.outcomes import Outcome

PNG = base64.b64encode(b"\x89PNG pretend").decode()
TABLE = '<table border="1" class="dataframe"><tr><td>10.0.1.5</td></tr></table>'


@pytest.fixture
def results(tmp_path: Path) -> list[LabResult]:
    hostile = '<script src="https://evil.example/x.js"></script>'
    cells = [
        v4.new_markdown_cell("# Reach a container\n\n[more](https://docs.docker.com) $x^2$"),
        v4.new_markdown_cell("## Who drops it?\n\n![p](https://evil.example/p.png)"),
        v4.new_markdown_cell("Text without a heading of its own."),
        v4.new_code_cell(
            "df",
            outputs=[
                v4.new_output("display_data", {"image/png": PNG + "\n", "text/plain": "Figure"}),
                v4.new_output("execute_result", {"text/html": TABLE, "text/plain": "df"}),
                v4.new_output("display_data", {"text/html": hostile}),
                v4.new_output(
                    "display_data",
                    {
                        "application/vnd.jupyter.widget-view+json": {"model_id": "a1"},
                        "text/plain": "a widget",
                    },
                ),
                v4.new_output("stream", name="stdout", text="3 <packets> dropped\n"),
            ],
        ),
    ]
    path = tmp_path / "03_reach_a_container.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    checks = tuple(
        CheckResult(f"check_{n}", status, f"Sentence {n} with <b>.") for n, status in enumerate(Outcome)
    )
    return [
        LabResult("03_reach_a_container", "Reach a container", 12.34, 3.0, checks, None, path),
        LabResult("04_join_an_overlay", "Join an <overlay>", 1.0, 0.5, (), "cell 2 broke", path),
    ]


class Loads(HTMLParser):
    """Collect what a browser would fetch for a page, beside links that a person follows."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self.urls += [values[key] for key in ("src", "href", "data") if key in values and tag != "a"]


def test_index_shows_everything(results: list[LabResult], tmp_path: Path) -> None:
    facts = {"Docker": "26.1.5", "Machine": "2 cores & no KVM"}
    path = report.write_report(results, tmp_path / "report", facts=facts)
    assert path == tmp_path / "report" / "index.html"
    html = path.read_text()
    assert "1 of 4 checks passed in 2 labs" in html
    assert "2 cores &amp; no KVM" in html
    for n, status in enumerate(Outcome):
        row = re.search(rf"<code>check_{n}</code>.*?</tr>", html, re.DOTALL)
        assert row
        # The word and a shape of its own, not only a colour.
        assert f"</svg>{status}</span>" in row[0]
        assert f"Sentence {n} with &lt;b&gt;." in row[0]
    assert len(set(re.findall(r"<svg.*?</svg>", html))) == len(Outcome)
    assert '<td class="number">1 of 4</td>' in html
    assert '<td class="number">12.3</td>' in html
    assert "stopped before its end: cell 2 broke" in html
    assert "Join an &lt;overlay&gt;" in html


def test_gallery_has_plots_and_tables_under_their_heading(
    results: list[LabResult], tmp_path: Path
) -> None:
    html = report.write_report(results[:1], tmp_path, facts={}).read_text()
    assert html.count(f'src="data:image/png;base64,{PNG}"') == 1
    assert "<figcaption>Who drops it?</figcaption>" in html
    assert "Table 1 of 1: Who drops it?" in html
    assert html.count(TABLE) == 1


def test_each_lab_has_a_page_that_is_linked(results: list[LabResult], tmp_path: Path) -> None:
    index = report.write_report(results, tmp_path, facts={"Docker": "26.1.5"}).read_text()
    for result in results:
        assert f'href="{result.id}.html"' in index
    page = (tmp_path / "03_reach_a_container.html").read_text()
    assert "3 &lt;packets&gt; dropped" in page
    assert PNG in page
    assert 'href="index.html"' in page
    assert "Sentence 1 with &lt;b&gt;." in page


def test_pages_load_nothing(results: list[LabResult], tmp_path: Path) -> None:
    report.write_report(results, tmp_path / "report", facts={})
    pages = sorted((tmp_path / "report").glob("*.html"))
    assert len(pages) == 3
    for page in pages:
        html = page.read_text()
        loads = Loads()
        loads.feed(html)
        # What a notebook brought in itself is all that there is, and the policy forbids it.
        outside = [url for url in loads.urls if not url.startswith("data:")]
        assert [url for url in outside if "evil.example" not in url] == []
        assert loads.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        for style in re.findall(r"<style.*?</style>", html, re.DOTALL):
            assert "@import" not in style
            assert "url(" not in style


def test_report_can_be_written_again_and_leaves_no_parts(
    results: list[LabResult], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    report.write_report(results, out, facts={})
    report.write_report(results[:1], out, facts={})
    assert "in 1 lab," in (out / "index.html").read_text()
    assert not list(out.glob(".*"))
