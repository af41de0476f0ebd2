"""The names that a cell's code sets and reads, found without running it."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from contextlib import suppress


def names_in(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell sets, or sets a part of, and those that it reads.

    A cell that is no Python has none.
    """
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    text = "\n".join(lines)
    sets, reads = set(), set()
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for symbol in symtable.symtable(text, "<cell>", "exec").get_symbols():
            if symbol.is_assigned() or symbol.is_imported():
                sets.add(symbol.get_name())
            if symbol.is_referenced():
                reads.add(symbol.get_name())
        sets |= set(_names_changed_in_part(ast.parse(text)))
    return sets, reads


def _names_changed_in_part(tree: ast.AST) -> Iterator[str]:
    """Yield the names in `checks.equals = …`, `table[0] = …`, `setattr(checks, …)`, `vars(checks)`."""
    for node in ast.walk(tree):
        root: ast.expr | None = None
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            root = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            root = node.args[0] if node.func.id in ("setattr", "vars") and node.args else None
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name):
            yield root.id
