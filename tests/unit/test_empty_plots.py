"""Plots of tables that nobody expects: without a row, without an answer, with forty names."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from labkit import experiments, plots
from labkit.schema import Column, Schema, schema_of

ADDRESSES = {"address", "answer", "client", "source", "destination", "new_source", "new_destination"}
# Each of these has a panel, a row or a word of the title for every name.
MANY = ["ablation", "examine", "lookups", "namespaces", "sockets"]


def table_of(name: str) -> Schema:
    module, _, function = getattr(plots, name).draws.rpartition(".")
    return schema_of(getattr(importlib.import_module(f"labkit.{module}"), function))


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name != "projector"])
def test_a_table_without_rows_gives_a_plot_that_says_so(name: str) -> None:
    axes = getattr(plots, name)(table_of(name).frame([]))
    assert "no rows" in axes.texts[0].get_text()


def test_a_spread_that_nobody_answered_says_so() -> None:
    row = {"way": "by name", "keep_alive": False, "reached": False, "connects": 0}
    df = schema_of(experiments.spread).frame([row | {"trial": trial} for trial in (1, 2, 3)])
    axes = plots.spread(df)
    assert "nobody answered" in [text.get_text() for text in axes.texts]
    plt.gcf().canvas.draw()


@pytest.mark.parametrize("name", MANY)
def test_forty_names_leave_the_axes_their_room(name: str) -> None:
    def value(column: Column, number: int) -> object:
        if column.name in ADDRESSES:
            return f"10.0.0.{number + 1}"
        if column.name == "node":
            return f"node{number % 4 + 1}"
        values = {"int": number + 1, "float": number + 0.5, "bool": number % 2 == 0}
        return values.get(column.kind, f"{column.name}-{number}.1")

    columns = table_of(name).columns
    df = pd.DataFrame(
        {c.name: pd.Series([value(c, n) for n in range(40)], dtype=c.dtype) for c in columns}
    )
    axes = getattr(plots, name)(df)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*collapsed.*")
        axes.figure.get_layout_engine().execute(axes.figure)
