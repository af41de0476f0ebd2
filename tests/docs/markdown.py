"""What the tests read in Markdown: the pages, their code and their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_GENERATED = re.compile(r"\d\d_[a-z0-9_]+")

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for page in DOCS.rglob("*.md") if not _GENERATED.fullmatch(page.stem)),
    ]
)


@dataclass(frozen=True)
class Code:
    """A piece of code on a page. Its language is empty for an indented block and for code in a line."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def code_of(page: Path) -> Iterator[Code]:
    """Yield each block of code and each piece of code in a line."""
    for token, line in _tokens(page):
        if token.type in ("fence", "code_block"):
            yield Code(page, line, token.info.strip(), token.content)
        elif token.type == "code_inline":
            yield Code(page, line, "", token.content)


def links_of(page: Path) -> Iterator[str]:
    """Yield where each link and each picture points."""
    for token, _ in _tokens(page):
        if token.type in ("link_open", "image"):
            yield str(token.attrGet("href") or token.attrGet("src"))


def anchors_of(page: Path) -> set[str]:
    """Return what links may name on a page, and on those that it includes: the headings."""
    text = page.read_text(encoding="utf-8")
    included = [
        page.parent / path for path in re.findall(r"^```\{include\} +(\S+)", text, re.MULTILINE)
    ]
    headings = re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE)
    own = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return own.union(*(anchors_of(page.parent / path) for path in included))


def _tokens(page: Path) -> Iterator[tuple[Token, int]]:
    """Yield every token, those in a line too, with the line that its block begins in, from 1."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        for inner in [token, *(token.children or ())]:
            yield inner, line
