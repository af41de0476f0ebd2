"""Report: everything is shown, what did not pass comes first, nothing is loaded from outside."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from labkit.authoring import report
from labkit.authoring.runner import LabResult
from labkit.outcomes import Outcome
from tests import reports

STATEMENTS = {"icmp-crosses": "A `ping` <crosses>.", "tcp-<is>-lost": "A curl is lost."}


@pytest.fixture
def results(tmp_path: Path) -> list[LabResult]:
    return reports.labs(tmp_path)


def write(results: list[LabResult], directory: Path, facts: dict[str, str] | None = None) -> Path:
    return report.write_report(results, directory, facts=facts or {}, statements=STATEMENTS)


class Tags(HTMLParser):
    """Collect what a browser would fetch for a page, beside a person's links, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.policy = ""
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.found.append((tag, values))
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self.urls += [values[key] for key in ("src", "href", "data") if key in values and tag != "a"]

    def all(self, *tags: str) -> list[dict[str, str]]:
        """The attributes of each such tag."""
        return [values for tag, values in self.found if tag in tags]


def test_index_shows_everything(results: list[LabResult], tmp_path: Path) -> None:
    facts = {"Docker": "26.1.5", "Machine": "2 cores & no KVM"}
    path = write(results, tmp_path / "report", facts)
    assert path == tmp_path / "report" / "index.html"
    html = path.read_text()
    assert "1 of 4 checks passed in 2 labs, and 1 of 2 claims held" in html
    assert "2 cores &amp; no KVM" in html
    for n, status in enumerate(Outcome):
        row = re.search(rf"<code>check_{n}</code>.*?</tr>", html, re.DOTALL)
        assert row
        # The word and a shape of its own, not only a colour.
        assert f"</svg>{status}</span>" in row[0]
        assert f"Sentence {n} with &lt;b&gt; and <code>curl</code>." in row[0]
    assert len(set(re.findall(r'<svg viewBox="0 0 16 16".*?</svg>', html))) == len(Outcome)
    assert '<td class="number">1 of 4</td>' in html
    assert '<td class="number">12.3</td>' in html
    assert "stopped before its end: cell 2 broke" in html
    assert "Join an &lt;overlay&gt;" in html


def test_what_did_not_pass_comes_first_and_in_full(results: list[LabResult], tmp_path: Path) -> None:
    html = write(results, tmp_path).read_text()
    first = html[html.index("What did not pass") : html.index("<h2>Overview")]
    assert [n for n in range(4) if f"check_{n}<" in first] == [1, 2, 3]
    assert "cell 2 broke" in first
    assert "A curl is lost." in first
    assert "A <code>ping</code>" not in first
    (good,) = reports.labs(tmp_path)[:1]
    passed = tuple(check for check in good.checks if check.status == Outcome.PASS)
    whole = LabResult(good.id, good.title, 1.0, 0.5, passed, None, good.notebook_path)
    html = write([whole], tmp_path).read_text()
    assert "What did not pass" not in html
    assert "every check passed, every claim held, and no lab stopped" in html


def test_a_claim_is_told_by_its_sentence_with_a_word(results: list[LabResult], tmp_path: Path) -> None:
    html = write(results, tmp_path).read_text()
    for word, statement in (
        ("held", "A <code>ping</code> &lt;crosses&gt;."),
        ("not held", "A curl is lost."),
    ):
        row = re.search(rf"<tr><td[^>]*>(?:(?!<tr>).)*{re.escape(statement)}", html, re.DOTALL)
        assert row
        assert f"</svg>{word}</span>" in row[0]
    # One that the ledger does not have is shown by its id.
    html = report.write_report(results, tmp_path, facts={}, statements={}).read_text()
    assert "tcp-&lt;is&gt;-lost" in html


def test_gallery_has_plots_with_their_words_and_tables(
    results: list[LabResult], tmp_path: Path
) -> None:
    html = write(results[:1], tmp_path).read_text()
    assert html.count(f'src="data:image/png;base64,{reports.PNG}"') == 2
    alts = [values["alt"] for values in Tags(html).all("img")]
    assert alts == [reports.ALT, "Plot under the heading: Who drops it?"]
    assert "<figcaption>Who drops it?</figcaption>" in html
    # The short one is open, the long one is folded.
    assert "<figcaption>Table 1 of 2: Who drops it?</figcaption>" in html
    assert "<summary>Table 2 of 2: Who drops it?</summary>" in html
    assert html.count('class="dataframe"') == 2
    pages = html, (tmp_path / f"{results[0].id}.html").read_text()
    assert not [page for page in pages if "<style scoped" in page]  # it would hold for every table


def test_each_lab_has_a_page_that_is_linked(results: list[LabResult], tmp_path: Path) -> None:
    index = write(results, tmp_path, {"Docker": "26.1.5"}).read_text()
    for result in results:
        assert f'href="{result.id}.html"' in index
        assert f'href="#{result.id}"' in index
        assert f'<section id="{result.id}"' in index
    page = (tmp_path / "03_reach_a_container.html").read_text()
    assert "3 &lt;packets&gt; dropped" in page
    assert reports.PNG in page
    assert 'href="index.html#03_reach_a_container"' in page
    assert "Sentence 1 with &lt;b&gt;" in page
    assert reports.ALT in [values["alt"] for values in Tags(page).all("img")]


def test_pages_can_be_read_without_seeing_them(results: list[LabResult], tmp_path: Path) -> None:
    for path in (write(results, tmp_path / "report").parent).glob("*.html"):
        tags = Tags(path.read_text())
        assert all(values.get("scope") in ("col", "row") for values in tags.all("th")), path.name
        assert all(values.get("alt") for values in tags.all("img")), path.name
        levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_pages_load_nothing(results: list[LabResult], tmp_path: Path) -> None:
    write(results, tmp_path / "report")
    pages = sorted((tmp_path / "report").glob("*.html"))
    assert len(pages) == 3
    for page in pages:
        html = page.read_text()
        tags = Tags(html)
        # What a notebook brought in itself is all that there is, and the policy forbids it.
        outside = [url for url in tags.urls if not url.startswith("data:")]
        assert [url for url in outside if "evil.example" not in url] == []
        assert tags.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        for style in re.findall(r"<style.*?</style>", html, re.DOTALL):
            assert "@import" not in style
            assert "url(" not in style


def test_report_can_be_written_again_and_leaves_no_parts(
    results: list[LabResult], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    write(results, out)
    write(results[:1], out)
    assert "in 1 lab," in (out / "index.html").read_text()
    assert not list(out.glob(".*"))
