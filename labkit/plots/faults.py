"""Plots of what a fault turns red (lab 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BAD_BOX,
    GOOD_BOX,
    GREY,
    PEACH,
    SMALL,
    VERMILLION,
    add_cell,
    as_sheet,
    draws,
    heads_on_top,
    mark,
    new_axes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@draws("faults.examine")
def examine(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `faults.examine`, of one look or of several: one row per check, one column per look."""
    looks, names = list(dict.fromkeys(df["look"])), list(dict.fromkeys(df["check"]))
    red = df[~df["ok"]].groupby("look")["check"].size()
    counted = ", ".join(f"{look}: {int(red.get(look, 0))}" for look in looks)
    axes = new_axes(1.0 + 0.34 * len(names), title or f"Red checks, by look: {counted}", pad=28)
    for row in df.itertuples():
        x, y, good = looks.index(row.look), names.index(row.check), bool(row.ok)
        box = GOOD_BOX if good else {**BAD_BOX, "hatch": "///"}
        add_cell(axes, x, y, gap=(0.02, 0.07), **box)
        axes.text(
            x + 0.5,
            y + 0.5,
            f"{mark(good)} {row.found}",
            ha="center",
            va="center",
            fontsize=SMALL,
            fontweight="normal" if good else "bold",
            bbox=None if good else {"facecolor": PEACH, "edgecolor": "none", "pad": 1.2},
        )
    as_sheet(axes, looks, names)
    axes.set_yticks(axes.get_yticks(), names, fontfamily="monospace")
    return axes


@draws("faults.signatures")
def signatures(df: pd.DataFrame, *, title: str = "Which checks each fault turns red") -> Axes:
    """Draw `faults.signatures`: one row per fault, one column per check, a cross where it turns red."""
    faults, names = list(dict.fromkeys(df["fault"])), list(dict.fromkeys(df["check"]))
    axes = new_axes(2.1 + 0.34 * len(faults), title)
    cross: dict[str, Any] = {"marker": "X", "color": VERMILLION, "markersize": 10}
    kinds: dict[str, dict[str, Any]] = {
        "turns red": cross,
        "may turn red": {**cross, "markerfacecolor": "none"},
        "stays green": {"marker": ".", "color": GREY, "markersize": 3},
    }
    word = df["red"].map({True: "turns red", False: "stays green"}).mask(df["either"], "may turn red")
    for kind, look in kinds.items():
        rows = df[word == kind]
        x, y = rows["check"].map(names.index), rows["fault"].map(faults.index)
        axes.plot(x, y, linestyle="none", label=kind, **look)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(kinds))
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(faults) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="left", fontfamily="monospace")
    axes.set_yticks(range(len(faults)), faults, fontfamily="monospace")
    heads_on_top(axes)
    axes.grid(alpha=0.2)
    return axes
