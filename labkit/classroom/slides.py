"""Slides for a projector, one HTML file for each lab, of its source and its recorded pictures.

A lab's rounds follow one another, and in each the order is the lab's own: the question, the prediction
with its choices, the pictures of what was seen, and what the lab proves. Nothing that answers a
prediction stands before it. A file has all in it, and needs no network.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import files, paths
from labkit.authoring import claims, markup, recorded, release
from labkit.authoring.report import alternative_text, render
from labkit.classroom.choices import choices_of
from labkit.nbgrader_cells import Role, check_of, role_of
from labkit.plots import canvas
from labkit.progress import Progress

if TYPE_CHECKING:
    from nbformat import NotebookNode

_HEADING = re.compile(r"## +(.+)")
_LABEL = re.compile(r"\*\*([^*]+)\.\*\* *")
_OWN = "On your own"
_WIDE = 1.5  # from this shape on, a picture is larger below the heading than beside it
# The more letters are on a slide, the smaller they are: characters, and the class of the style.
_SIZES = ((260, "large"), (520, "middle"), (10_000, "small"))
_ITEM = 30  # characters
_MOST_ON_A_SLIDE = 760  # characters of a list; what is longer goes on on the next slide
_COLOURS = {
    name: getattr(canvas, name.upper())
    for name in ("blue", "mint", "peach", "grey", "green_ink", "vermillion_ink", "purple_ink")
}


@dataclass(frozen=True)
class Picture:
    """A picture that a cell of the lab has drawn: base64 of a PNG, and the words that stand for it."""

    png: str
    alt: str

    @property
    def shape(self) -> str:
        """Where it stands on a slide: `wide` below the heading, `tall` beside it."""
        head = base64.b64decode(self.png[:32])  # a PNG's first bytes hold its width and height
        width, height = struct.unpack(">II", head[16:24])
        return "wide" if width > _WIDE * height else "tall"


@dataclass
class Round:
    """One round of a lab, or another part of it that asks something; texts are Markdown."""

    heading: str
    question: str = ""
    prediction: str = ""
    choices: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    """The ids of what it proves, in the ledger of claims."""


@dataclass(frozen=True)
class Slide:
    """One slide; `body` is HTML."""

    kind: str
    """question, prediction, picture, proof or own: its colour and its word above the heading."""
    heading: str
    body: str = ""
    size: str = "large"
    choices: Sequence[str] = ()
    picture: Picture | None = None


def write(labs: Sequence[Path], folder: Path, progress: Progress) -> list[Path]:
    """Write NAME.html into a folder for each lab's source; returns the files.

    Labs that were not run on their recordings since they changed are run first. Raises MarkupError, and
    what `recorded.executed` raises.
    """
    # For a projector the pictures have more dots; their letters are as large, seen against the slide.
    notebooks = recorded.executed(
        labs, paths.cache() / "recorded", env={"LABKIT_PROJECTOR": "1"}, progress=progress
    )
    stated = claims.statements(paths.LABS)
    written = []
    for source, notebook in zip(labs, notebooks, strict=True):
        about = recorded.row_of_swarm(source.stem)
        target = folder / f"{source.stem}.html"
        files.write_text(target, deck(source.stem, notebook, stated, about))
        written.append(target)
    return written


def deck(lab: str, notebook: NotebookNode, stated: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """Return the slides of an executed lab as a page of HTML.

    ``stated`` has what each claim states, ``about`` what the recording says of its swarm: started,
    docker, nodes.
    """
    intro, found = _intro(notebook), rounds(notebook)
    day = date.fromisoformat(str(about["started"])[:10])
    docker = str(about["docker"]).partition("+")[0]  # without a distribution's own number
    return render(
        "slides.html.j2",
        number=lab[:2],
        title=release.title(notebook),
        doing=_html(intro.get("What you'll do", "")),
        learning=_html(intro.get("What you'll learn", "")),
        has_pictures=any(part.pictures for part in found),
        recorded=f"Docker {docker}, {len(about['nodes'])} nodes, {day.day} {day:%B %Y}",
        slides=[slide for part in found for slide in _slides(part, stated)]
        + _listed("own", _OWN, _items(_own(notebook))),
        words={
            "question": "Question",
            "prediction": "Predict",
            "picture": "What was seen",
            "proof": "What the lab proves",
            "own": "After the lab",
        },
        **_COLOURS,
    )


def rounds(notebook: NotebookNode) -> list[Round]:
    """Return the parts of an executed lab that ask something, in order."""
    return [_round(part) for part in _parts(notebook)[1:] if part.asks and part.heading != _OWN]


@dataclass
class _Part:
    """What stands below one second-level heading: paragraphs of prose, and cells of code."""

    heading: str = ""
    prose: list[str] = field(default_factory=list)
    code: list[NotebookNode] = field(default_factory=list)

    @property
    def asks(self) -> bool:
        return any(check_of(cell) for cell in self.code)


def _parts(notebook: NotebookNode) -> list[_Part]:
    """Return the parts of a lab; the first one is what stands above all headings.

    One Markdown cell may end a part and begin the next. Answers in words are left out.
    """
    parts = [_Part()]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts[-1].code.append(cell)
        elif role_of(cell) is Role.GIVEN:
            for text in re.split(r"\n\s*\n", cell.source):
                if begins := _HEADING.fullmatch(text.strip()):
                    parts.append(_Part(begins[1].replace("`", "")))
                elif text.strip() and not text.startswith("#"):
                    parts[-1].prose.append(text.strip())
    return parts


def _round(part: _Part) -> Round:
    made = Round(part.heading)
    others = []
    for text in part.prose:
        made.claims += [c for note in markup.CLAIM_NOTE.findall(text) for c in note.split()]
        label, rest = _labelled(text)
        if label == "Question":
            made.question = rest
        elif label == "Predict":
            made.prediction = rest
        elif label in ("", "Look", "Explain"):
            others.append(rest)
    if made.prediction:
        made.question = made.question or others[0]
        made.choices = choices_of(
            made.prediction, [cell.source for cell in part.code if check_of(cell)]
        )
    # What is neither a round nor predicted asks its question where it comes to it.
    asking = (text for text in others if "?" in text)
    made.question = made.question or next(asking, "")
    # A part whose sentences carry no mark proves what its checks are marked with.
    marked = made.claims or [claim for cell in part.code for claim in markup.claims_of(cell)]
    made.claims = list(dict.fromkeys(marked))
    shown = filter(_is_shown, part.code)
    made.pictures = [picture for cell in shown for picture in _pictures(cell, part.heading)]
    return made


def _labelled(text: str) -> tuple[str, str]:
    """Return the bold word that a paragraph begins with, and the rest without marks of claims."""
    label = _LABEL.match(text)
    rest = markup.CLAIM_NOTE.sub("", text[label.end() :] if label else text)
    return label[1] if label else "", rest.strip()


def _is_shown(cell: NotebookNode) -> bool:
    """Whether a learner has the cell with its output: a given one, and no guard."""
    return role_of(cell) is Role.GIVEN and not markup.GUARD_TAGS & set(cell.metadata.get("tags", ()))


def _pictures(cell: NotebookNode, heading: str) -> Iterator[Picture]:
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "image/png" in data:
            yield Picture("".join(data["image/png"].split()), alternative_text(output, heading))


def _intro(notebook: NotebookNode) -> dict[str, str]:
    """Return the paragraphs above the first part, by the bold word that it begins with.

    A list belongs to the paragraph above it.
    """
    found: dict[str, str] = {}
    last = ""
    for text in _parts(notebook)[0].prose:
        label, rest = _labelled(text)
        if label:
            last = label
            found[label] = rest
        elif last:
            found[last] += f"\n\n{rest}"
    return found


def _own(notebook: NotebookNode) -> str:
    prose = (part.prose for part in _parts(notebook) if part.heading == _OWN)
    return "\n\n".join(next(prose, ()))


def _items(text: str) -> list[str]:
    """Return the items of the lists in a text."""
    return [item.strip() for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def _slides(part: Round, stated: Mapping[str, str]) -> Iterator[Slide]:
    if part.question:
        yield Slide("question", part.heading, _html(part.question), _size(part.question))
    if part.prediction:
        text = part.prediction
        yield Slide("prediction", part.heading, _html(text), _size(text), choices=part.choices)
    for picture in part.pictures:
        yield Slide("picture", part.heading, picture=picture)
    yield from _listed("proof", part.heading, [stated[claim] for claim in part.claims])


def _listed(kind: str, heading: str, items: Sequence[str]) -> list[Slide]:
    """Return slides with a list, each with no more than fits."""
    pages: list[list[str]] = []
    for item in items:
        if not pages or sum(map(len, pages[-1])) + len(item) > _MOST_ON_A_SLIDE:
            pages.append([])
        pages[-1].append(item)
    return [
        Slide(
            kind,
            heading,
            _html("\n".join(f"- {item}" for item in page)),
            _size("".join(page), lines=len(page)),
        )
        for page in pages
    ]


def _size(text: str, *, lines: int = 0) -> str:
    """Return the class of a text's letters; an item of a list takes part of a line more."""
    return next(size for most, size in _SIZES if len(text) + _ITEM * lines <= most)


def _html(text: str) -> str:
    """Turn Markdown into HTML, as nbconvert does it."""
    from nbconvert.filters import markdown2html_mistune

    return str(markdown2html_mistune(text))
