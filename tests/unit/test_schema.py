"""Declared columns: the table follows from them, and whatever differs from them is an error."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labkit.schema import Column, Row, Schema, SchemaError, schema_of, table

SCHEMA = Schema(
    (
        Column("name", "str", "of the interface"),
        Column("mtu", "int"),
        Column("rtt_ms", "float", "to the reply"),
        Column("up", "bool"),
    )
)
DTYPES = {"name": "str", "mtu": "Int64", "rtt_ms": "float64", "up": "boolean"}
ROW: Row = {"name": "eth0", "mtu": 1450, "rtt_ms": 0.5, "up": True}


def dtypes(found: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in found.dtypes.items()}


# --- declarations --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["string", "Int64", "object", ""])
def test_an_unknown_type_is_refused(kind: Any) -> None:
    with pytest.raises(SchemaError, match="there are: str, int, float, bool"):
        Column("mtu", kind)


@pytest.mark.parametrize("name", ["MTU", "rtt ms", "1st", "rtt-ms", ""])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="lower snake case"):
        Column(name, "int")


def test_a_column_is_declared_once() -> None:
    with pytest.raises(SchemaError, match="declared twice: mtu"):
        Schema((Column("mtu", "int"), Column("name", "str"), Column("mtu", "float")))


def test_the_text_has_one_line_per_column() -> None:
    assert SCHEMA.text().splitlines() == [
        "name    str    of the interface",
        "mtu     int",
        "rtt_ms  float  to the reply",
        "up      bool",
    ]


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[], [ROW], [{}], [ROW, {"name": "lo"}]])
def test_the_dtypes_do_not_depend_on_the_rows(rows: list[Row]) -> None:
    found = SCHEMA.frame(rows)
    assert len(found) == len(rows)
    assert dtypes(found) == DTYPES


def test_what_tools_print_as_text_is_read_as_numbers() -> None:
    found = SCHEMA.frame([{"mtu": "1450", "rtt_ms": "0.061"}])
    assert found["mtu"].tolist() == [1450]
    assert found["rtt_ms"].tolist() == [0.061]


def test_values_of_numpy_and_pandas_are_values() -> None:
    row = {"name": np.str_("lo"), "mtu": np.int64(9), "rtt_ms": np.float32(0.5), "up": np.True_}
    assert SCHEMA.frame([row]).to_dict("records") == [
        {"name": "lo", "mtu": 9, "rtt_ms": 0.5, "up": True}
    ]


@pytest.mark.parametrize("absent", [None, pd.NA, float("nan"), pd.NaT])
def test_a_value_may_be_absent(absent: Any) -> None:
    assert SCHEMA.frame([dict.fromkeys(DTYPES, absent)]).isna().to_numpy().all()


def test_an_undeclared_key_is_refused() -> None:
    with pytest.raises(SchemaError, match="not declared: colour, node"):
        SCHEMA.frame([ROW, ROW | {"node": "node1", "colour": None}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 7),
        ("name", ["eth0"]),
        ("name", True),
        ("mtu", 1450.0),
        ("mtu", 0.5),
        ("mtu", True),
        ("mtu", np.True_),
        ("mtu", "large"),
        ("rtt_ms", "soon"),
        ("rtt_ms", False),
        ("rtt_ms", 1j),
        ("up", 1),
        ("up", "yes"),
        ("up", ""),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any) -> None:
    kind = next(column.kind for column in SCHEMA.columns if column.name == name)
    with pytest.raises(SchemaError, match=f"'{name}' is {kind}"):
        SCHEMA.frame([ROW, {name: value}])


# --- tables --------------------------------------------------------------------------------------


def test_a_table_gets_the_declared_order_and_dtypes_and_keeps_its_index() -> None:
    given = pd.DataFrame(
        {"up": [True, None], "rtt_ms": [1, 2], "mtu": [1450.0, None], "name": ["lo", None]},
        index=["a", "a"],
    )
    found = SCHEMA.check(given)
    assert dtypes(found) == DTYPES
    assert list(found.index) == ["a", "a"]
    assert found["mtu"].tolist() == [1450, pd.NA]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": ["node1"]}, "not declared: node"),
        ({"mtu": [0.5]}, "'mtu' is int"),
        ({"mtu": [True]}, "'mtu' is int"),
        ({"name": [7]}, "'name' is str"),
        ({"up": [1]}, "'up' is bool"),
        ({"rtt_ms": [[0.5]]}, "'rtt_ms' is float"),
    ],
)
def test_a_table_that_differs_is_refused(change: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        SCHEMA.check(pd.DataFrame({name: [value] for name, value in ROW.items()} | change))


def test_a_table_with_a_column_too_few_or_twice_is_refused() -> None:
    given = pd.DataFrame([ROW])
    with pytest.raises(SchemaError, match="lacks: mtu"):
        SCHEMA.check(given.drop(columns="mtu"))
    with pytest.raises(SchemaError, match="twice"):
        SCHEMA.check(pd.concat([given, given[["mtu"]]], axis=1))


# --- the decorator -------------------------------------------------------------------------------


@table(*SCHEMA.columns)
def links(text: str, *, mtu: int = 1500) -> Iterator[Row]:
    """Read links: one row per name."""
    for name in text.split():
        yield {"name": name, "mtu": mtu}


@table(*SCHEMA.columns)
def whole(found: pd.DataFrame) -> pd.DataFrame:
    return found


def test_rows_become_a_table() -> None:
    found = links("lo eth0", mtu=1450)
    assert dtypes(found) == DTYPES
    assert found["mtu"].tolist() == [1450, 1450]
    assert links("").empty


def test_a_whole_table_is_checked() -> None:
    assert dtypes(whole(pd.DataFrame([ROW]))) == DTYPES
    with pytest.raises(SchemaError):
        whole(pd.DataFrame([ROW | {"mtu": "large"}]))


def test_the_docstring_ends_with_the_columns() -> None:
    assert links.__doc__ == (
        "Read links: one row per name.\n\nColumns::\n\n"
        "    name    str    of the interface\n"
        "    mtu     int\n"
        "    rtt_ms  float  to the reply\n"
        "    up      bool\n"
    )
    assert (whole.__doc__ or "").startswith("Columns::\n")


def test_the_signature_says_that_a_table_comes_out() -> None:
    assert str(inspect.signature(links)) == "(text: 'str', *, mtu: 'int' = 1500) -> 'pd.DataFrame'"


def test_the_schema_is_found_again() -> None:
    assert schema_of(links) == SCHEMA
    with pytest.raises(SchemaError, match="dtypes declares no columns"):
        schema_of(dtypes)
