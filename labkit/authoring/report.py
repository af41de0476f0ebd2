"""Write the report of executed labs: pages that load nothing.

    index.html      the facts of the run, every check, every plot and table
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
from labkit.authoring.runner import LabResult
from labkit.outcomes import Outcome

if TYPE_CHECKING:
    from nbformat import NotebookNode

_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class _Exhibit:
    """A plot (base64 PNG) or a table (HTML) of a lab, with the heading that it stands under."""

    heading: str
    body: str


def write_report(results: Sequence[LabResult], directory: Path, *, facts: Mapping[str, str]) -> Path:
    """Write the report into a directory and return its index.

    ``facts`` about the run stand at its head, in their order: name and value.
    """
    import nbformat

    labs = []
    for result in results:
        notebook = nbformat.read(result.notebook_path, as_version=4)  # type: ignore[no-untyped-call]
        page = render("lab.html.j2", lab=result, body=_to_html(notebook, result), facts=facts)
        files.write_text(directory / f"{result.id}.html", page)
        plots, tables = _exhibits(notebook)
        passed = sum(check.status == Outcome.PASS for check in result.checks)
        labs.append({"result": result, "passed": passed, "plots": plots, "tables": tables})
    statuses = [check.status for result in results for check in result.checks]
    index = render(
        "report.html.j2",
        labs=labs,
        facts=facts,
        counts={outcome.value: statuses.count(outcome) for outcome in Outcome},
        seconds=sum(result.seconds for result in results),
        stopped=[result for result in results if result.error is not None],
    )
    # The index comes last: it never links to a page that is not there.
    path = directory / "index.html"
    files.write_text(path, index)
    return path


def render(template: str, **values: Any) -> str:
    """Fill a template of the kit; every value is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from pygments.formatters import HtmlFormatter

    environment = Environment(
        loader=PackageLoader("labkit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return environment.get_template(template).render(light=light, dark=dark, **values)


def _to_html(notebook: NotebookNode, result: LabResult) -> str:
    """Turn an executed notebook into the HTML of its cells, without page, style and scripts."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", embed_images=True)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"name": result.id, "path": str(result.notebook_path.parent)}}
    return str(exporter.from_notebook_node(notebook, resources)[0])


def _exhibits(notebook: NotebookNode) -> tuple[list[_Exhibit], list[_Exhibit]]:
    """Collect a notebook's plots and tables."""
    plots: list[_Exhibit] = []
    tables: list[_Exhibit] = []
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (_HEADING.findall(cell.source) or [heading])[-1]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            html = "".join(data.get("text/html", ""))
            if "image/png" in data:
                plots.append(_Exhibit(heading, "".join(data["image/png"].split())))
            elif 'class="dataframe"' in html:
                tables.append(_Exhibit(heading, html))
    return plots, tables
