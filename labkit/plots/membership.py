"""A plot of who is on a network, as each node tells it (lab 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    add_cell,
    address_order,
    as_sheet,
    draws,
    new_axes,
    over_columns,
    tint,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_PARTS = {"Containers": ("●", GREEN), "Services": ("✓", BLUE)}


@draws("experiments.members")
def members(df: pd.DataFrame, *, title: str = "Who is on the network") -> Axes:
    """Draw `experiments.members`: one row per address, and two columns per node that was asked."""
    nodes = list(dict.fromkeys(df["node"]))
    named = df.drop_duplicates("address").set_index("address")
    addresses = sorted(named.index, key=address_order)
    hosts = named["host"].fillna("another machine")
    rows = [f"{address}  {named['name'][address]}, on {hosts[address]}" for address in addresses]
    columns = [(node, part) for node in nodes for part in _PARTS]
    axes = new_axes(1.6 + 0.42 * len(addresses), title, pad=44)
    as_sheet(axes, [part for _, part in columns], rows)
    over_columns(axes, [f"{node} says" for node in nodes])
    said = set(zip(df["node"], df["part"], df["address"], strict=True))
    for x, (node, part) in enumerate(columns):
        for y, address in enumerate(addresses):
            if (node, part, address) in said:
                sign, colour = _PARTS[part]
                tint(add_cell(axes, x, y, gap=(0.05, 0.1)), colour)
                axes.text(x + 0.5, y + 0.5, sign, ha="center", va="center", fontweight="bold")
    return axes
