"""The API reference: the directive `api`, and docstrings turned into what Sphinx reads.

    ```{api} labkit.plots          all that a module offers, wherever in its package it is written
    ```{api} labkit.engines        and, with the option :modules:, a section for each module in it

The kit's docstrings are plain text with Markdown's marks:

- `code` in single backticks is code;
- a paragraph that is indented, or aligned in columns, stays as it is typed;
- a list may follow its sentence without an empty line, and `Raises:` has one error per line;
- the columns that a function declares by `labkit.schema.table` become a real table.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from labkit.schema import Schema

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_AS_IT_IS = re.compile(r"(``[^`]+``|(?<![\w*])\*\w[^*\n]*\*(?![\w*]))")
_ALIGNED = re.compile(r"\S {2,}\S")
_SENTENCE = re.compile(r"[.:] {2,}\S")
_ERROR = re.compile(r"^ {4}(\w+): ")
_ITEM = re.compile(r"- +\S")


def to_rst(text: str, schema: Schema | None = None) -> list[str]:
    """Return the lines of a docstring as reStructuredText, the declared columns as a table."""
    if schema:
        shown = {"Columns::", *schema.text().splitlines()}
        text = "\n".join(line for line in text.splitlines() if line.strip() not in shown - {""})
    lines: list[str] = []
    for block in re.split(r"\n(?: *\n)+", text.strip("\n")):
        rows = block.splitlines()
        if rows and rows[0] == "Raises:":
            rows[1:] = [_ERROR.sub(r"- `\1`: ", re.sub("^ {5,}", "  ", row)) for row in rows[1:]]
        if _is_literal(rows):
            lines += [".. code-block:: text", "", *(f"    {row}" for row in rows), ""]
        else:
            prose = "\n".join(_spaced(rows))
            lines += [*_marked(re.sub("::$", ":", prose)).splitlines(), ""]
    return [*lines, *_table(schema)] if schema else lines


def _is_literal(rows: list[str]) -> bool:
    """Return whether a paragraph is shown as it is typed: an indented one, or one in columns."""
    if not rows:
        return False
    if all(row.startswith("    ") for row in rows):
        return True
    aligned = [row for row in rows if _ALIGNED.search(row) and not _SENTENCE.search(row)]
    return not _ITEM.match(rows[0]) and len(aligned) * 2 >= len(rows) and bool(aligned)


def _spaced(rows: list[str]) -> Iterator[str]:
    """Yield a paragraph with an empty line before a list that follows its sentence."""
    for number, row in enumerate(rows):
        if number and _ITEM.match(row) and not rows[number - 1].startswith(("- ", "  ")):
            yield ""
        yield row


def _marked(text: str) -> str:
    """Turn `code` into ``code``; *emphasis* stays, and any other * | or final _ means nothing."""
    parts = _AS_IT_IS.split(_CODE.sub(r"``\1``", text))
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _table(schema: Schema) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "   :class: columns", "")
    yield from ("   * - column", "     - type", "     - meaning")
    for column in schema.columns:
        yield f"   * - ``{column.name}``"
        yield from (f"     - {column.kind}", f"     - {_marked(column.meaning)}")
    yield ""


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    found = getattr(obj, "schema", None)
    lines[:] = to_rst("\n".join(lines), found if isinstance(found, Schema) else None)


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what Python itself writes about the fields of a named tuple."""
    return True if str(obj.__doc__).startswith("Alias for field number") else None


class Api(SphinxDirective):
    """Puts in the reference of a module or package."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"modules": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return what autodoc writes of the module and, if asked for, of each module in it."""
        self.env.note_reread()  # the code may have changed since
        name = self.arguments[0]
        if "modules" not in self.options:
            return self.parse_text_to_nodes(_automodule(name))
        package = importlib.import_module(name)
        names = [name, *(found.name for found in pkgutil.walk_packages(package.__path__, f"{name}."))]
        text = "\n\n".join(f"## {module}\n\n{_automodule(module)}" for module in names)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _automodule(name: str) -> str:
    """Return the directive for a module; what it has from others, only if in `__all__`."""
    offers = getattr(importlib.import_module(name), "__all__", None)
    imported = "   :imported-members:\n" if offers else ""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n{imported}```"


def _linked(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a type that a signature names without its module: it was imported for types only."""
    if node["refdomain"] != "py" or node["reftype"] != "class":
        return None
    name = node["reftarget"].rpartition(".")[2]
    domain = env.domains.python_domain
    found = [
        full
        for full, entry in domain.objects.items()
        if full.endswith(f".{name}") and entry.objtype == "class"
    ]
    if len(found) != 1:
        return None
    entry = domain.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("api", Api)
    app.connect("missing-reference", _linked)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
