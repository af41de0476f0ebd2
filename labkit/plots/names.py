"""Plots of what a name stands for (lab 06)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BAD_BOX,
    BLUE,
    GOOD_BOX,
    GREY,
    MIDDLE,
    add_cell,
    address_order,
    as_sheet,
    draws,
    figure_title,
    hide_spines,
    mark,
    new_axes,
    new_panels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes


_COLUMNS = 4  # panels side by side; more names go into another line of them


@draws("experiments.lookups")
def lookups(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups` of several trials: one panel per name, one dot per address given."""
    given = df[df["answer"].notna()]
    names = list(dict.fromkeys(df["name"]))
    counts = [(name, given[given["name"] == name]["answer"].nunique()) for name in names]
    words = [f"{name} gave {count} address{'' if count == 1 else 'es'}" for name, count in counts]
    title = title or f"In {df['trial'].nunique()} questions {', '.join(words)}"
    owner = dict(zip(given["answer"], given["owner"].astype(object), strict=True))
    addresses = sorted(owner, key=address_order, reverse=True)
    height = 1.7 + 0.55 * max(len(addresses), 1)
    columns = min(len(names), _COLUMNS)
    lines = math.ceil(len(names) / columns)
    figure, panels = new_panels(lines, columns, height * lines, sharey=True)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels.flat, names, strict=False):
        _draw_replies(axes, given[given["name"] == name], addresses)
        axes.set_title(name, loc="center", fontsize=MIDDLE, fontweight="normal", family="monospace")
        axes.set_xlim(0.3, float(df["trial"].max()) + 0.7)
    for axes in panels[:, 0]:
        axes.set_yticks(range(len(addresses)), [f"{a}  {owner[a]}" for a in addresses])
    left: Axes = panels[0][0]
    figure_title(figure, f"{title}\n● first in the reply   ○ further down in the same reply")
    return left


def _draw_replies(axes: Axes, df: pd.DataFrame, addresses: Sequence[str]) -> None:
    """Draw the replies to the questions for one name, from left to right."""
    for trial, answer, position in zip(df["trial"], df["answer"], df["position"], strict=True):
        axes.plot(
            trial,
            addresses.index(answer),
            marker="o",
            markersize=10,
            color=BLUE,
            markerfacecolor=BLUE if position == 1 else "white",
            linestyle="none",
        )
    axes.set_xlabel("question number")
    axes.set_ylim(-0.6, len(addresses) - 0.4)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    hide_spines(axes, "left")
    if df.empty:
        axes.text(0.5, 0.5, "no address", ha="center", transform=axes.transAxes, color=GREY)


@draws("experiments.lookups")
def names(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups` of several places: what each name (row) is at each place (column)."""
    rows, places = list(dict.fromkeys(df["name"])), list(dict.fromkeys(df["place"]))
    known = df[df["answer"].notna()].groupby("place")["name"].nunique()
    counted = [f"{place} {int(known.get(place, 0))}" for place in places]
    title = title or f"Of {len(rows)} names, how many each place resolves: {', '.join(counted)}"
    axes = new_axes(1.0 + 0.42 * len(rows), title, pad=28)
    for (name, place), replies in df.groupby(["name", "place"], sort=False):
        x, y = places.index(place), rows.index(name)
        whose = replies["owner"].dropna().drop_duplicates().sort_values()
        good = bool(replies["answer"].notna().any())
        word = ", ".join(whose) or ("an address" if good else "no address")
        add_cell(axes, x, y, gap=(0.03, 0.08), **(GOOD_BOX if good else BAD_BOX))
        axes.text(x + 0.5, y + 0.5, f"{mark(good)} {word}", ha="center", va="center")
    as_sheet(axes, [f"asked in {place}" for place in places], rows)
    axes.set_yticks(axes.get_yticks(), rows, fontfamily="monospace")
    return axes
