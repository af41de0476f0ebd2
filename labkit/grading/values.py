"""A learner's answers as plain data: how they leave the learner's process and reach the judge's.

Three places use this module, and only the two ends are pristine:

    export   in the learner's kernel, where nothing can be trusted: names to JSON text
    read     in the process that marks: checks the text, whoever made it
    put      in the judge's kernel: makes Python's own values of what `read` let through

What passes: None, bool, int, float, str, `...`, lists, tuples, sets, dicts, numpy's numbers and arrays,
pandas' arrays, columns and tables (as data), and commands (as what was asked and when: the judge takes
the answer from the evidence). Of anything else only the name of its type passes. Nothing is pickled,
and nothing that came from a learner is run.

In JSON, null, booleans, numbers and texts stand for themselves. The rest is an object:

    {"kind": "float", "value": "nan" | "inf" | "-inf"}      {"kind": "unanswered"}
    {"kind": "list" | "tuple" | "set", "items": […]}        {"kind": "dict", "items": [[key, value], …]}
    {"kind": "table", "columns": {name: […]}}               {"kind": "column", "items": […]}
    {"kind": "command", "node": …, "place": …, "argv": […], "started": …}
    {"kind": "other", "type": …}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

MAX_CHARACTERS = 1_000_000
"""Of the JSON text of all the values that one check takes."""
_MAX_DEPTH = 8
_MAX_ITEMS = 20_000
_MAX_TYPE = 120
_MAX_INT = 2**63

Document = Any
"""A value as JSON has it."""


class NotReadable(ValueError):
    """What came from the learner's process is not what `export` writes."""


# --- in the learner's kernel ---------------------------------------------------------------------


class _Text:
    """A text that IPython shows without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def export(namespace: Mapping[str, Any], names: Iterable[str]) -> _Text:
    """Return the values of those names that are set, as JSON: an object by name."""
    found = {name: _encoded_whole(namespace[name]) for name in names if name in namespace}
    text = json.dumps(found)
    if len(text) > MAX_CHARACTERS:
        too_much = {"kind": "other", "type": f"more than {MAX_CHARACTERS:,} characters of data"}
        text = json.dumps(dict.fromkeys(found, too_much))
    return _Text(text)


def _encoded_whole(value: Any) -> Document:
    try:
        return _encoded(value, 0)
    except Exception:  # a type of the learner's can do anything when it is looked at
        return _other(type(value))


def _other(kind: type) -> Document:
    return {"kind": "other", "type": f"{kind.__module__}.{kind.__qualname__}"[:_MAX_TYPE]}


def _encoded(value: Any, depth: int) -> Document:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if value is ...:
        return {"kind": "unanswered"}
    if kind is int and -_MAX_INT <= value < _MAX_INT:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"kind": "float", "value": str(value)}
    package = kind.__module__.partition(".")[0]
    if package == "numpy" and getattr(value, "ndim", None) == 0:
        return _encoded(value.item(), _MAX_DEPTH)
    if depth < _MAX_DEPTH and (not hasattr(kind, "__len__") or len(value) <= _MAX_ITEMS):
        if kind in (list, tuple, set, frozenset, range, dict):
            return _encoded_items(value, depth + 1)
        if encode := _FOREIGN.get(f"{package}.{kind.__qualname__}"):
            return encode(value, depth)
    return _other(kind)


def _encoded_items(value: Any, depth: int) -> Document:
    if type(value) is dict:
        items = [[_encoded(k, depth), _encoded(v, depth)] for k, v in value.items()]
        return {"kind": "dict", "items": items}
    kind = type(value).__name__
    name = {"tuple": "tuple", "set": "set", "frozenset": "set"}.get(kind, "list")
    return {"kind": name, "items": [_encoded(item, depth) for item in value]}


def _encoded_column(value: Any, depth: int) -> Document:
    return {"kind": "column", "items": [_encoded(item, depth + 1) for item in value.tolist()]}


def _encoded_table(value: Any, depth: int) -> Document:
    names = [str(name) for name in value.columns]
    columns = (_encoded_column(value.iloc[:, at], depth)["items"] for at in range(len(names)))
    return {"kind": "table", "columns": dict(zip(names, columns, strict=True))}


def _encoded_command(value: Any, _: int) -> Document:
    asked = {"node": value.node, "place": value.place, "argv": list(value.argv)}
    return {"kind": "command", **asked, "started": value.started.isoformat()}


def _encoded_array(value: Any, depth: int) -> Document:
    return _encoded(value.tolist(), depth)


# Of what pandas makes beside columns: what can hold plain values.
_ARRAYS = (
    *("ArrowExtensionArray", "ArrowStringArray", "BooleanArray", "Categorical", "FloatingArray"),
    *("IntegerArray", "NumpyExtensionArray", "SparseArray", "StringArray"),
    *("CategoricalIndex", "MultiIndex", "RangeIndex"),
)
_FOREIGN: Mapping[str, Callable[[Any, int], Document]] = {
    "labkit.Capture": _encoded_command,
    "numpy.ndarray": _encoded_array,
    "pandas.DataFrame": _encoded_table,
    "pandas.Series": _encoded_column,
    "pandas.Index": _encoded_column,
    **{f"pandas.{name}": _encoded_array for name in _ARRAYS},
}
"""How values of a library's types become data, by package and type."""


# --- in the process that marks -------------------------------------------------------------------


def read(text: str | None, names: Iterable[str]) -> dict[str, Document]:
    """Check what a learner's kernel sent, and return the values by name; raises NotReadable."""
    if text is None or len(text) > MAX_CHARACTERS:
        raise NotReadable("its values did not come, or are too many")
    try:
        found = json.loads(text, parse_constant=_refuse)
        if not isinstance(found, dict) or not found.keys() <= set(names):
            raise NotReadable("its values are not those that were asked for")
        for document in found.values():
            _require_document(document, 0)
    except (ValueError, RecursionError) as problem:
        raise NotReadable(f"its values cannot be read: {str(problem)[:_MAX_TYPE]}") from problem
    return found


def foreign_type(document: Document) -> str:
    """Return the type of the first value in a document that is no plain data; empty where all is."""
    if not isinstance(document, dict):
        return ""
    if document["kind"] == "other":
        return str(document["type"])
    return next(filter(None, map(foreign_type, _inner(document))), "")


def is_table(document: Document) -> bool:
    """Whether a value is a table or a column that the learner's code made."""
    return isinstance(document, dict) and document["kind"] in ("table", "column")


def _refuse(constant: str) -> None:
    raise NotReadable(f"{constant} is no JSON")


def _require_document(document: Document, depth: int) -> None:
    if depth > _MAX_DEPTH + 2:
        raise NotReadable("a value is nested too deep")
    if isinstance(document, list):
        raise NotReadable("a list has no kind")
    if isinstance(document, float) and not math.isfinite(document):
        raise NotReadable("a number is too large")
    if isinstance(document, int) and not -_MAX_INT <= document < _MAX_INT:
        raise NotReadable("a number is too large")
    if not isinstance(document, dict):
        return
    kind = document.get("kind")
    form = _FORMS.get(kind) if isinstance(kind, str) else None
    if form is None or not form({k: v for k, v in document.items() if k != "kind"}):
        raise NotReadable("a value has a form that is unknown")
    for item in _inner(document):
        _require_document(item, depth + 1)


def _inner(document: Mapping[str, Any]) -> list[Document]:
    """Return the values in a document that is an object."""
    if document["kind"] == "table":
        return [item for column in document["columns"].values() for item in column]
    items = document.get("items", [])
    return [part for pair in items for part in pair] if document["kind"] == "dict" else items


def _is_items(fields: Mapping[str, Any]) -> bool:
    return fields.keys() == {"items"} and _is_list(fields["items"])


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_ITEMS


def _is_pairs(fields: Mapping[str, Any]) -> bool:
    return _is_items(fields) and all(isinstance(p, list) and len(p) == 2 for p in fields["items"])


def _is_table(fields: Mapping[str, Any]) -> bool:
    columns = fields.get("columns")
    if fields.keys() != {"columns"} or not isinstance(columns, dict):
        return False
    return all(map(_is_list, columns.values())) and len({len(c) for c in columns.values()}) <= 1


def _is_command(fields: Mapping[str, Any]) -> bool:
    texts = [fields.get(name) for name in ("node", "place", "started")]
    argv = fields.get("argv")
    words = argv if isinstance(argv, list) else [None]
    return len(fields) == 4 and all(isinstance(text, str) for text in [*texts, *words])


_FORMS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "float": lambda fields: fields.keys() == {"value"} and fields["value"] in ("nan", "inf", "-inf"),
    "unanswered": lambda fields: not fields,
    **dict.fromkeys(("list", "tuple", "set", "column"), _is_items),
    "dict": _is_pairs,
    "table": _is_table,
    "command": _is_command,
    "other": lambda fields: fields.keys() == {"type"} and isinstance(fields["type"], str),
}


# --- in the judge's kernel -----------------------------------------------------------------------


def put(namespace: MutableMapping[str, Any], names: Iterable[str], text: str) -> None:
    """Set the names to the values of a text that `read` let through; those without one are unset.

    Raises CouldNotRun for a command that is not in the evidence.
    """
    found = json.loads(text)
    for name in names:
        namespace.pop(name, None)
        if name in found:
            namespace[name] = _decoded(found[name])


def _decoded(document: Document) -> Any:
    if not isinstance(document, dict):
        return document
    kind = document["kind"]
    if kind == "unanswered":
        return ...
    if kind == "float":
        return float(document["value"])
    if kind == "command":
        return _recorded_command(document)
    if kind == "table":
        import pandas as pd

        return pd.DataFrame(
            {name: [_decoded(item) for item in items] for name, items in document["columns"].items()}
        )
    items = document["items"]
    if kind == "dict":
        return {_hashable(_decoded(key)): _decoded(value) for key, value in items}
    values = [_decoded(item) for item in items]
    if kind == "column":
        import pandas as pd

        return pd.Series(values)
    if kind == "set":
        return set(map(_hashable, values))
    return tuple(values) if kind == "tuple" else values


def _hashable(value: Any) -> Any:
    """Return a value that a set or a dict can hold: only a forged document has another."""
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _recorded_command(document: Mapping[str, Any]) -> Any:
    from labkit.errors import CouldNotRun
    from labkit.evidence import replayed

    wanted = {name: document[name] for name in ("node", "place", "started")}
    for capture in replayed.captures():
        its = {"node": capture.node, "place": capture.place, "started": capture.started.isoformat()}
        if its == wanted and list(capture.argv) == document["argv"]:
            return capture
    command = " ".join(document["argv"])[:_MAX_TYPE]
    raise CouldNotRun(f"The command `{command}` of the answer is not in the evidence.")
