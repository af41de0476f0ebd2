"""The API reference has every module that a notebook uses, and each public name is documented."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from labkit.schema import Column, table
from tests.docs.load import load
from tests.docs.markdown import DOCS

PAGES = [page.read_text(encoding="utf-8") for page in (DOCS / "reference" / "api").glob("*.md")]
MODULES = sorted(
    {name for page in PAGES for name in re.findall(r"^```{api} (\S+)", page, re.MULTILINE)}
)


def test_every_module_for_notebooks_has_a_place() -> None:
    wanted = load(DOCS / "draw_architecture.py").FOR_NOTEBOOKS
    assert {f"labkit.{name}" for name in wanted} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    own = {key for key, value in vars(module).items() if getattr(value, "__module__", "") == name}
    offered = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    silent = [
        key
        for key in offered
        if (inspect.isclass(value := getattr(module, key)) or inspect.isfunction(value))
        and not inspect.getdoc(value)
    ]
    assert not silent


def test_docstrings_become_restructuredtext() -> None:
    to_rst = load(DOCS / "_ext" / "api_reference.py").to_rst
    text = "Ask *once* `a` of *args:\n- `b`\n  more\n- two\n\n    lab.run(`x`)\n\nname  str  a column"
    assert to_rst(text) == [
        *["Ask *once* ``a`` of \\*args:", "", "- ``b``", "  more", "- two", ""],
        *[".. code-block:: text", "", "        lab.run(`x`)", ""],
        *[".. code-block:: text", "", "    name  str  a column", ""],
    ]


def test_errors_become_a_list() -> None:
    to_rst = load(DOCS / "_ext" / "api_reference.py").to_rst
    text = "Ask.\n\nRaises:\n    SwarmError: no node\n        is there.\n    UsageError: no `b`."
    wanted = ["- ``SwarmError``: no node", "  is there.", "- ``UsageError``: no ``b``."]
    assert to_rst(text) == ["Ask.", "", "Raises:", "", *wanted, ""]


def test_declared_columns_become_a_table() -> None:
    to_rst = load(DOCS / "_ext" / "api_reference.py").to_rst

    @table(Column("rtt_ms", "float", "to `b` and back"))
    def ping() -> list[dict[str, float]]:
        """Ask once."""
        return [{"rtt_ms": 1.0}]

    lines = to_rst(ping.__doc__ or "", ping.schema)  # type: ignore[attr-defined]
    assert lines[0] == "Ask once."
    assert lines[-4:] == ["   * - ``rtt_ms``", "     - float", "     - to ``b`` and back", ""]
    assert not [line for line in lines if "code-block" in line]
