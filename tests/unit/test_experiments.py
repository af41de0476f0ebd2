"""The rooms of experiments and plots: each function says what it returns and what it raises."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from labkit import experiments, parsers, plots, swarm
from labkit.errors import UsageError
from labkit.experiments import asking, names
from labkit.schema import Schema, SchemaError, schema_of

Function = Callable[..., Any]

OTHER = {"link_of", "stations"}  # they return no table


def public(package: Any) -> dict[str, Function]:
    """The functions of a package that a notebook can call."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


EXPERIMENTS = {name: f for name, f in public(experiments).items() if name not in OTHER}
PLOTS = {name: draw for name, draw in public(plots).items() if name != "projector"}
# What ends the name of a number that has a unit.
QUANTITIES = re.compile(r"_(s|ms|bytes|mbps)$")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_declares_its_columns_and_their_meaning(name: str) -> None:
    schema = schema_of(EXPERIMENTS[name])
    assert [column.name for column in schema.columns if not column.meaning] == []
    assert schema.text().splitlines()[0] in (EXPERIMENTS[name].__doc__ or "")
    assert inspect.signature(EXPERIMENTS[name]).return_annotation == "pd.DataFrame"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_number_with_a_unit_has_it_in_its_name(name: str) -> None:
    for column in schema_of(EXPERIMENTS[name]).columns:
        if column.name == "seconds" or name == "moments":  # its docstring gives one unit for all
            continue
        if column.kind == "float":
            assert QUANTITIES.search(column.name), column.name
        if QUANTITIES.search(column.name):
            assert column.kind in ("int", "float"), column.name


@pytest.mark.parametrize("name", [*EXPERIMENTS, *sorted(OTHER)])
def test_every_experiment_says_what_it_raises(name: str) -> None:
    doc = inspect.getdoc(getattr(experiments, name)) or ""
    assert "\nRaises:\n" in doc or "\nRaises nothing" in doc
    for error in re.findall(
        r"^    (\w+): ", doc.partition("\nRaises:\n")[2].partition("\n\n")[0], re.M
    ):
        assert hasattr(importlib.import_module("labkit.errors"), error), error


def test_a_table_of_probes_has_all_columns_of_a_probe() -> None:
    """`checks.reached` and `checks.not_reached` judge a table by them."""
    columns = {column.name for column in asking.PROBE} - {"seconds", "answer"}
    for name in ("reach", "ports", "spread", "clients", "ablation", "resolve", "speeds", "wire_sizes"):
        assert columns <= schema_of(EXPERIMENTS[name]).dtypes.keys()


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_names_the_table_that_it_draws(name: str) -> None:
    draw = PLOTS[name]
    table = draw.draws  # type: ignore[attr-defined]
    package, _, function = table.partition(".")
    assert callable(getattr(importlib.import_module(f"labkit.{package}"), function))
    assert name == function or (name, function) == ("names", "lookups")
    doc = inspect.getdoc(draw) or ""
    assert doc.startswith(f"Draw `{table}`")
    assert "\nReturns:\n" in doc
    assert "\nRaises:\n" in doc


def test_a_plot_leaves_the_notebooks_own_settings_alone() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    rows = [{"step": "now", "port": 80, "protocol": "TCP", "reached": True, "answer": "HI", "code": 0}]
    with mpl.rc_context({"font.size": 21, "axes.facecolor": "black", "axes.spines.top": True}):
        before = dict(mpl.rcParams)
        axes = plots.ports(pd.DataFrame(rows))
        assert dict(mpl.rcParams) == before
    assert axes.xaxis.label.get_fontsize() == 10
    assert axes.get_facecolor() == (1, 1, 1, 1)


def test_a_plot_of_another_table_is_an_error() -> None:
    with pytest.raises(KeyError):
        plots.reach(pd.DataFrame({"node": ["node1"]}))


def test_counters_of_rules_have_the_columns_of_their_parser() -> None:
    columns = list(schema_of(experiments.rule_counters).dtypes)
    assert columns == ["node", "place", *parsers.iptables_list("").columns]


@pytest.mark.parametrize(
    ("column", "value"),
    [("owner", 7), ("owner", True), ("nobody", "x")],
)
def test_a_row_that_is_not_as_declared_is_an_error(column: str, value: object) -> None:
    row = {"network": "ingress", "address": "10.0.0.2", "owner": "hello.1"}
    schema = schema_of(names.owners)
    assert list(schema.frame([row])["owner"]) == ["hello.1"]
    with pytest.raises(SchemaError):
        schema.frame([row | {column: value}])


def test_the_order_of_a_category_comes_with_the_table() -> None:
    schema: Schema = schema_of(experiments.neighbour_tables)
    table = schema.frame([])
    assert str(table["look"].dtype) == "category"
    words = pd.DataFrame({name: ["x"] for name in schema.dtypes})
    with pytest.raises(SchemaError, match="look"):
        schema.check(words)
    looks = pd.Categorical(["x"], categories=["y", "x"], ordered=True)
    assert list(schema.check(words.assign(look=looks))["look"].cat.categories) == ["y", "x"]


def test_a_name_that_dig_would_take_for_something_else_is_asked_as_a_name() -> None:
    asked: list[list[str]] = []

    class Stop(Exception):
        pass

    class Lab:
        def run_all(self, commands: list[tuple[Any, list[str]]], **_: Any) -> None:
            asked.extend(argv for _, argv in commands)
            raise Stop

    place = swarm.Place(None, "a.1")  # type: ignore[arg-type]
    with pytest.raises(Stop):
        experiments.lookups(Lab(), place, ["a", "mx", "-x", "TYPE1", "hello-a", "front"])  # type: ignore[arg-type]
    words = ["-q", "a", "-q", "mx", "-q", "-x", "-q", "TYPE1", "hello-a", "front"]
    assert asked[0][4:] == words
    with pytest.raises(UsageError, match="is no task and no place"):
        experiments.lookups(Lab(), ["a.1"], "a")  # type: ignore[arg-type,list-item]
