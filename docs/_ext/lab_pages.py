"""Writes a page for each lab, to be read: what a released notebook shows, with recorded output.

The lab's source is run on the recording that the kit ships, without a swarm. The page then has the
cells of the *release*, so no solution and no hidden test, and the output of the given cells. An answer
cell and a check have no output: what they print depends on the answer.

A lab is run again only when its source, its recording or the kit has changed; executed notebooks are
kept under build/docs-labs.
"""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from labkit.authoring import recorded, release
from labkit.nbgrader_cells import Role, points_of, role_of
from labkit.progress import Bars

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "labs" / "source"
KEPT = ROOT / "build" / "docs-labs"

_SCOPED_STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def write_pages(app: Sphinx) -> None:
    """Write docs/labs/NN_verb_noun.md and its pictures for every lab; leave unchanged files alone."""
    folder = Path(app.srcdir) / "labs"
    sources = release.find_labs(SOURCES)
    for source, executed in zip(sources, executed_labs(sources), strict=True):
        page, pictures = page_of(source, executed)
        for name, data in {f"{source.stem}.md": page.encode(), **pictures}.items():
            target = folder / name
            if not target.is_file() or target.read_bytes() != data:
                target.write_bytes(data)


def executed_labs(sources: Sequence[Path]) -> list[NotebookNode]:
    """Return each lab's source as executed on its recording; runs what changed since the last time.

    Raises ExtensionError where a lab stops or one of its checks does not pass.
    """
    try:
        return recorded.executed(sources, KEPT, env={}, progress=Bars())
    except recorded.RecordingError as problem:
        raise ExtensionError(str(problem)) from problem


def page_of(source: Path, executed: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """Return a lab's page in MyST, and its pictures by file name."""
    import nbformat

    shown = nbformat.reads(release.build(source), as_version=4)  # type: ignore[no-untyped-call]
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    heading = ""
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            heading = (_HEADING.findall(cell.source) or [heading])[-1]
            parts.append(cell.source)
            continue
        parts.append(_code(cell))
        if role_of(cell) is not Role.GIVEN:
            continue
        for output in outputs[cell.id]:
            name = f"{source.stem}-{len(pictures) + 1}.png"
            text, picture = _output(output, name, _title_of(cell.source) or heading)
            parts.append(text)
            if picture:
                pictures[name] = picture
    page = "\n\n".join(part for part in parts if part)
    return _with_head(page, source), pictures


def _with_head(page: str, source: Path) -> str:
    """Put the lab's number into the title, and below it the note on where the output is from."""
    title, rest = page.split("\n", 1)
    row: dict[str, Any] = recorded.row_of_swarm(source.stem)
    day = date.fromisoformat(row["started"][:10])
    note = (
        ":::{note}\n"
        f"**The output on this page is recorded**, on {day.day} {day:%B %Y}, on a real swarm of"
        f" {len(row['nodes'])} nodes with Docker {row['docker']}. No swarm ran when the page was"
        " built. On yours the names, ports and numbers are your own. Answer cells are empty, as you"
        " get them; what a check says depends on your answer. To work on the lab, open"
        f" `{source.stem}.ipynb` in JupyterLab: {{doc}}`/start`.\n:::"
    )
    return f"# {source.stem[:2]} {title.removeprefix('# ')}\n\n{note}\n{rest}\n"


def _code(cell: NotebookNode) -> str:
    """Return a code cell as a block, with a caption that says what a graded cell is for."""
    points = points_of(cell)
    caption = {
        Role.ANSWER: "Your answer",
        Role.CHECK: f"Check, {points:g} point{'' if points == 1 else 's'}",
    }.get(role_of(cell))
    options = f":caption: {caption}\n" if caption else ""
    return _fence("code-block", "python", cell.source, options)


def _output(output: NotebookNode, name: str, title: str) -> tuple[str, bytes]:
    """Return one output of a cell in MyST and, of a picture, its bytes; the richest form wins."""
    if output.output_type == "stream":
        return _text(output.text), b""
    if output.output_type == "error":
        return _text(f"{output.ename}: {output.evalue}"), b""
    data = output.data
    if "image/png" in data:
        return f"![{title}]({name})", base64.b64decode(data["image/png"])
    if "text/html" in data:
        html = _SCOPED_STYLE.sub("", data["text/html"])
        return _fence("raw", "html", f'<div class="lab-output">\n{html}\n</div>'), b""
    if "text/markdown" in data:
        return str(data["text/markdown"]), b""
    return _text(data["text/plain"]), b""


def _text(text: str) -> str:
    """Return what a cell printed as a block without colours; nothing for nothing."""
    plain = _ANSI.sub("", text).rstrip()
    return _fence("code-block", "text", plain, ":class: lab-text\n") if plain.strip() else ""


def _fence(directive: str, argument: str, body: str, options: str = "") -> str:
    """Return a directive with a fence that is longer than any in its body."""
    ticks = "`" * max(3, *(len(run) + 1 for run in [*re.findall("`+", body), ""]))
    return f"{ticks}{{{directive}}} {argument}\n{options}\n{body}\n{ticks}"


def _title_of(source: str) -> str:
    """Return the title that a cell gives its plot, as the picture's text for who cannot see it."""
    return next(_titles(source), "")


def _titles(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "title"
            and isinstance(node.value, ast.Constant)
        ):
            yield str(node.value.value)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
