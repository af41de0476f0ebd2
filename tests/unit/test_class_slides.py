"""Slides: each round of each lab, no answer before its prediction, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from nbformat import NotebookNode

from labkit import paths
from labkit.authoring import claims, markup, release
from labkit.classroom import choices, slides
from labkit.nbgrader_cells import Role, check_of, role_of
from tests import decks

LABS = release.find_labs(paths.SOURCES)
STATED = claims.statements(paths.LABS)
DATA = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


class Page(HTMLParser):
    """The slides of a page: kind, heading, text, and the attributes of every element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.slides: list[dict[str, Any]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = dict(attrs)
        if tag == "section":
            kind = (found["class"] or "").split()[1]
            self.slides.append({"kind": kind, "heading": "", "text": "", "alt": [], "choices": []})
        if tag == "img":
            self.slides[-1]["alt"].append(found.get("alt"))

    def handle_data(self, data: str) -> None:
        if not self.slides or self._tag in ("script", "style"):
            return
        self.slides[-1]["text"] += data
        if self._tag == "h2":
            self.slides[-1]["heading"] += data.strip()

    def kinds(self, heading: str) -> list[str]:
        return [slide["kind"] for slide in self.slides if slide["heading"] == heading]


@pytest.fixture(scope="module", params=LABS, ids=lambda lab: lab.stem)
def lab(request: pytest.FixtureRequest) -> tuple[NotebookNode, str]:
    notebook = decks.executed(request.param)
    return notebook, decks.deck(request.param, notebook)


def test_every_round_is_there_in_order(lab: tuple[NotebookNode, str]) -> None:
    notebook, text = lab
    page = Page(text)
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    headings = [h.replace("`", "") for h in re.findall(r"^## +(.+)$", source, re.MULTILINE)]
    wanted = [h for h in headings if re.match(r"Round|Break it|Incident|A trap|Your own", h)]
    told = list(dict.fromkeys(s["heading"] for s in page.slides[1:]))
    assert told == [*wanted, "On your own"]
    for heading in wanted:
        kinds = page.kinds(heading)
        assert kinds[0] == "question"
        order = [kind for kind in ("question", "prediction", "picture", "proof") if kind in kinds]
        assert list(dict.fromkeys(kinds)) == order
        assert kinds == sorted(kinds, key=order.index)
    assert page.slides[0]["kind"] == "title"
    assert page.slides[-1]["kind"] == "own"


def test_every_prediction_picture_and_claim_is_there(lab: tuple[NotebookNode, str]) -> None:
    notebook, text = lab
    page = Page(text)
    prose = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert [s["kind"] for s in page.slides].count("prediction") == len(
        re.findall(r"^\*\*Predict\.\*\*", prose, re.MULTILINE)
    )
    shown = "\n".join(slide["text"] for slide in page.slides)
    parts = slides.rounds(notebook)
    for claim in {c for part in parts for c in part.claims}:
        words = re.sub(r"[`\s]+", " ", STATED[claim])
        assert words in re.sub(r"\s+", " ", shown)
    given = [c for c in notebook.cells if c.get("outputs") and role_of(c) is Role.GIVEN]
    wanted = {f"drawn by <{c.id}>" for c in given if not markup.GUARD_TAGS & set(c.metadata.tags)}
    alts = {alt for slide in page.slides for alt in slide["alt"]}
    assert alts <= wanted
    # Above the rounds and below them nothing is asked, and so nothing is shown.
    assert len(alts) == sum(len(part.pictures) for part in parts)


def test_no_answer_stands_before_its_prediction(lab: tuple[NotebookNode, str]) -> None:
    notebook, text = lab
    page = Page(text)
    for slide in page.slides:
        if slide["kind"] in ("title", "question", "prediction"):
            assert slide["alt"] == []
    for cell in notebook.cells:
        lines = [*markup.solution(cell).splitlines(), *markup.hidden_lines(cell.source)]
        if role_of(cell).is_answer or check_of(cell):
            for line in lines:
                assert len(line.strip()) < 12 or line.strip() not in text


def test_every_picture_has_words_and_nothing_is_loaded(lab: tuple[NotebookNode, str]) -> None:
    _, text = lab
    page = Page(text)
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(images) == text.count("<img ")
    assert all(images)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "data", "srcset", "action", "poster"):
            assert (tag, name) == ("img", "src")
            assert DATA.fullmatch(value)
        assert not name.startswith("on")
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert "default-src 'none'" in text
    assert not re.search(r"fetch\(|import\(|XMLHttpRequest|WebSocket", text)


def test_letters_are_large_and_stand_out() -> None:
    style = (paths.PACKAGE / "templates" / "slides.html.j2").read_text()
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)rem", style)]
    assert min(sizes) >= 2.4  # 10 pixels each, where a slide is 1280 wide
    assert not re.search(r"font-size: [\d.]+em", style)
    ink = {"blue", "purple_ink", "grey", "green_ink", "vermillion_ink"}
    colours = slides._COLOURS
    pale = ("#FFFFFF", colours["mint"], colours["peach"])
    assert all(contrast(colours[name], "#FFFFFF") >= 4.5 for name in ink)
    assert all(contrast("#000000", behind) >= 4.5 for behind in pale)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2.1 defines it."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("prediction", "checks", "wanted"),
    [
        ('Write `"yes"` or `"no"`, again `"yes"`.', [], ["yes", "no"]),
        ("Write 2, 3, or 0.", ["checks.one_of(step, [0, 2, 3], name='s')"], ["0", "2", "3"]),
        ("How many?", ["x = 1", "checks.one_of(n, range(1, 6), name='n')"], ["a number"]),
        ("Which?", ["checks.one_of(n, suspects, name='n')"], []),
        ("Which?", ["checks.equals(n, 3)"], []),
    ],
)
def test_choices(prediction: str, checks: list[str], wanted: list[str]) -> None:
    assert choices.choices_of(prediction, checks) == wanted


def test_where_a_picture_stands() -> None:
    assert slides.Picture(decks.png(900, 400), "").shape == "wide"
    assert slides.Picture(decks.png(900, 900), "").shape == "tall"
