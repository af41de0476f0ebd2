"""Write the report of executed labs: pages that load nothing.

    index.html      what did not pass, the labs beside each other, and of each lab the claims, plots,
                    tables and checks
    ID.html         one executed lab

Style and pictures are inside each page. It has no script, and its content security policy forbids the
browser to load anything, whatever a notebook's output asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import files
from labkit.authoring import seen
from labkit.authoring.runner import CheckResult, LabResult
from labkit.outcomes import Outcome

if TYPE_CHECKING:
    from markupsafe import Markup
    from nbformat import NotebookNode

_LONG_TABLE = 12  # rows; a longer one is folded
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_STYLE = re.compile(r"<style scoped[^>]*>.*?</style>\s*", re.DOTALL)
_HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
_TABLE = re.compile(r'<table[^>]*class="dataframe".*?</table>', re.DOTALL)
# A keyboard has to reach what is wider than the page.
_WIDE = r'<div class="scroll" tabindex="0" role="group" aria-label="Table">\g<0></div>'
_NO_ALT = re.compile(r"<img\b(?![^>]* alt=)")
_EMPTY_HEADER = re.compile(r"<th\b[^>]*></th>")
_HEADER = re.compile(r"<th\b(?![^>]* scope=)")


@dataclass(frozen=True)
class _Plot:
    """A plot of a lab (base64 PNG), with the heading that it stands under."""

    heading: str
    body: str
    alt: str


@dataclass(frozen=True)
class _Table:
    """A table of a lab (HTML), with the heading that it stands under."""

    heading: str
    body: str
    is_long: bool


@dataclass(frozen=True)
class _Claim:
    """What a lab states, and whether it was so in this run."""

    statement: str
    held: bool
    seen: tuple[str, ...]
    """The Docker versions on which `make matrix` saw it."""


@dataclass(frozen=True)
class _Lab:
    """All that the index shows of a lab."""

    result: LabResult
    claims: tuple[_Claim, ...]
    plots: tuple[_Plot, ...]
    tables: tuple[_Table, ...]

    @property
    def missed(self) -> list[CheckResult]:
        """The checks that did not pass."""
        return [check for check in self.result.checks if check.status != Outcome.PASS]

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return len(self.result.checks) - len(self.missed)

    @property
    def refuted(self) -> list[_Claim]:
        """The claims that did not hold."""
        return [claim for claim in self.claims if not claim.held]

    @property
    def held(self) -> int:
        """How many claims held."""
        return len(self.claims) - len(self.refuted)

    @property
    def is_whole(self) -> bool:
        """Whether all of it passed, and it came to its end."""
        return not self.missed and not self.refuted and self.result.error is None


def write_report(
    results: Sequence[LabResult],
    directory: Path,
    *,
    facts: Mapping[str, str],
    statements: Mapping[str, str],
) -> Path:
    """Write the report into a directory and return its index.

    ``facts`` about the run stand at its head, in their order: name and value. ``statements`` are what
    the claims state, by their id.
    """
    import nbformat

    labs = []
    for result in results:
        notebook = nbformat.read(result.notebook_path, as_version=4)  # type: ignore[no-untyped-call]
        page = render("lab.html.j2", lab=result, body=_to_html(notebook, result), facts=facts)
        files.write_text(directory / f"{result.id}.html", page)
        plots, tables = _exhibits(notebook)
        labs.append(_Lab(result, _claims(result, statements), plots, tables))
    statuses = [check.status for result in results for check in result.checks]
    index = render(
        "report.html.j2",
        labs=labs,
        facts=facts,
        counts={outcome.value: statuses.count(outcome) for outcome in Outcome},
        longest=max((result.seconds for result in results), default=0.0) or 1.0,
    )
    # The index comes last: it never links to a page that is not there.
    path = directory / "index.html"
    files.write_text(path, index)
    return path


def render(template: str, **values: Any) -> str:
    """Fill a template of the kit; every value is escaped.

    The filter `code` shows what stands between backticks as code.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from pygments.formatters import HtmlFormatter

    environment = Environment(
        loader=PackageLoader("labkit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _with_code
    light = HtmlFormatter(style="xcode").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return environment.get_template(template).render(light=light, dark=dark, **values)


def _to_html(notebook: NotebookNode, result: LabResult) -> str:
    """Turn an executed notebook into the HTML of its cells, without page, style and scripts."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", embed_images=True)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"name": result.id, "path": str(result.notebook_path.parent)}}
    html = str(exporter.from_notebook_node(notebook, resources)[0])
    return _TABLE.sub(_WIDE, _with_scopes(_NO_ALT.sub('<img alt="Plot"', html)))


def alternative_text(output: Mapping[str, Any], otherwise: str) -> str:
    """Return the words that stand for an output's picture; ``otherwise`` where it has none."""
    about = output.get("metadata", {})
    # Of the picture, or of the whole output; nbconvert looks in the same two places.
    return str(about.get("image/png", {}).get("alt") or about.get("alt") or otherwise)


def _exhibits(notebook: NotebookNode) -> tuple[tuple[_Plot, ...], tuple[_Table, ...]]:
    """Collect a notebook's plots and tables."""
    plots: list[_Plot] = []
    tables: list[_Table] = []
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (_HEADING.findall(cell.source) or [heading])[-1]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            html = "".join(data.get("text/html", ""))
            if "image/png" in data:
                alt = alternative_text(output, f"Plot under the heading: {heading}")
                plots.append(_Plot(heading, "".join(data["image/png"].split()), alt))
            elif 'class="dataframe"' in html:
                is_long = _HEAD.sub("", html).count("<tr") > _LONG_TABLE
                tables.append(_Table(heading, _with_scopes(html), is_long))
    return tuple(plots), tuple(tables)


def _claims(result: LabResult, statements: Mapping[str, str]) -> tuple[_Claim, ...]:
    """Return what a lab states, what did not hold first."""
    found = []
    for claim, held in result.claims.items():
        where = seen.by_claim().get(claim, {})
        versions = tuple(sorted(version for version, passed in where.items() if passed))
        found.append(_Claim(statements.get(claim, claim), held, versions))
    return tuple(sorted(found, key=lambda claim: claim.held))


def _with_code(text: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _with_scopes(html: str) -> str:
    """Let each header of a table say what it heads; the style that pandas gives a table goes."""
    html = _EMPTY_HEADER.sub("<td></td>", _STYLE.sub("", html))
    html = _HEAD.sub(lambda head: _HEADER.sub('<th scope="col"', head[0]), html)
    return _HEADER.sub('<th scope="row"', html)
