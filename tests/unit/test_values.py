"""Answers as plain data: what crosses from the learner's process to the judge's, and what does not."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest

from labkit.capture import Capture
from labkit.errors import CouldNotRun
from labkit.evidence import replayed
from labkit.grading import values
from labkit.grading.values import NotReadable


def crossed(value: object) -> Any:
    """What the judge gets of a value."""
    text = repr(values.export({"x": value}, ["x", "not_set"]))
    found = values.read(text, ["x", "not_set"])
    namespace: dict[str, Any] = {"not_set": 1}
    values.put(namespace, ["x", "not_set"], json.dumps(found))
    assert namespace.keys() == {"x"}
    return namespace["x"]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 7, -(2**63), 2.5, math.inf, "text", "ü\n\x1b", ...),
        *([1, [2, "a"]], (1, 2), {1, 2}, {"a": [1, ...]}, {1: {2: 3}}, [], {}),
    ],
    ids=repr,
)
def test_plain_values_cross_as_they_are(value: object) -> None:
    got = crossed(value)
    assert got == value
    assert type(got) is type(value)


def test_numbers_of_libraries_cross_as_pythons() -> None:
    assert [type(crossed(v)) for v in (np.int64(3), np.float64(2.5), np.bool_(True), np.str_("a"))] == [
        int,
        float,
        bool,
        str,
    ]
    assert math.isnan(crossed(math.nan))
    assert crossed(np.array([1, 2])) == [1, 2]
    assert crossed(range(3)) == [0, 1, 2]
    assert crossed(frozenset({1})) == {1}


def test_tables_cross_as_data() -> None:
    table = pd.DataFrame({"node": ["a", "b"], "count": [1, 2]})
    pd.testing.assert_frame_equal(crossed(table), table, check_dtype=False)
    assert crossed(table["count"]).tolist() == [1, 2]
    assert values.is_table(values.read(repr(values.export({"x": table}, ["x"])), ["x"])["x"])


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (pd.Series(["a", "b", "a"]).unique(), ["a", "b"]),
        (pd.Series(["a", "b"], dtype="string").array, ["a", "b"]),
        (pd.Series([1, 2], dtype="Int64").unique(), [1, 2]),
        (pd.Series([1.5, 2], dtype="Float64").array, [1.5, 2.0]),
        (pd.Series([True], dtype="boolean").array, [True]),
        (pd.Series([0, 0, 1], dtype="Sparse[int]").array, [0, 0, 1]),
        (pd.Series([1, 2]).array, [1, 2]),
        (pd.Categorical(["b", "a"]), ["b", "a"]),
        (pd.CategoricalIndex(["b", "a"]), ["b", "a"]),
        (pd.DataFrame({"a": [1, 2]}).index, [0, 1]),
        (pd.MultiIndex.from_tuples([("a", 1)]), [("a", 1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_array_crosses_as_a_list(value: object, items: list[object]) -> None:
    """The same answer passes in a notebook, where a check asks for the list of its items."""
    assert crossed(value) == items
    assert crossed([value]) == [items]


class _RangeIndex(pd.RangeIndex):
    """A type of the learner's own may say anything when it is asked for its items."""


class _Raises:
    def __len__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (ANY, "unittest.mock._ANY"),
        ([1, ANY], "unittest.mock._ANY"),
        ({"a": ANY}, "unittest.mock._ANY"),
        (lambda: 3, "builtins.function"),
        (b"3", "builtins.bytes"),
        (2**63, "builtins.int"),
        (SimpleNamespace(), "types.SimpleNamespace"),
        ([0] * 20_001, "builtins.list"),
        (["x" * 600_000, "y" * 600_000], "more than 1,000,000 characters of data"),
        (_Raises(), "test_values._Raises"),
        (_RangeIndex(3), "test_values._RangeIndex"),
        (pd.RangeIndex(20_001), "pandas.RangeIndex"),
        (pd.Series(["a", None], dtype="string").array, "NAType"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_of_anything_else_only_the_type_crosses(value: object, kind: str) -> None:
    found = values.read(repr(values.export({"x": value}, ["x"])), ["x"])
    assert values.foreign_type(found["x"]).endswith(kind)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        '{"other": 1}',
        '{"x": NaN}',
        '{"x": [1]}',
        '{"x": 1e999}',
        '{"x": ' + "9" * 30 + "}",
        '{"x": ' + "9" * 9000 + "}",
        '{"x": ' + "[" * 100_000,
        '{"x": {"kind": []}}',
        '{"x": {"kind": "eval", "code": "1"}}',
        '{"x": {"kind": "list"}}',
        '{"x": {"kind": "list", "items": 1}}',
        '{"x": {"kind": "list", "items": [[1]]}}',
        '{"x": {"kind": "dict", "items": [[1]]}}',
        '{"x": {"kind": "float", "value": "1"}}',
        '{"x": {"kind": "unanswered", "more": 1}}',
        '{"x": {"kind": "table", "columns": {"a": [1], "b": []}}}',
        '{"x": {"kind": "command", "node": "n", "place": "p", "argv": [1], "started": ""}}',
        '{"x": ' + '{"kind": "list", "items": [' * 12 + "1" + "]}" * 12 + "}",
        '{"x": "' + "y" * values.MAX_CHARACTERS + '"}',
    ],
    ids=lambda text: str(text)[:40],
)
def test_what_export_does_not_write_is_not_read(text: str | None) -> None:
    with pytest.raises(NotReadable):
        values.read(text, ["x"])


def test_a_dict_with_a_list_as_its_key_is_forged_and_harmless() -> None:
    document = {"kind": "dict", "items": [[{"kind": "list", "items": [1]}, 2]]}
    namespace: dict[str, Any] = {}
    values.put(namespace, ["x"], json.dumps(values.read(json.dumps({"x": document}), ["x"])))
    assert namespace["x"] == {"[1]": 2}


def test_a_command_is_taken_from_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    started = datetime(2026, 1, 2, tzinfo=UTC)
    real = Capture(("ip", "neigh"), "a.1", "node1", 0, "as recorded", "", started, 0.1, "26.1")
    monkeypatch.setattr(replayed, "captures", lambda: iter([real]))
    claimed = Capture(("ip", "neigh"), "a.1", "node1", 0, "as I like it", "", started, 0.1, "26.1")
    assert crossed(claimed).stdout == "as recorded"
    other = Capture(("ip", "addr"), "a.1", "node1", 0, "", "", started, 0.1, "26.1")
    with pytest.raises(CouldNotRun, match="`ip addr` of the answer is not in the evidence"):
        crossed(other)
