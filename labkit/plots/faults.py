"""Plots of what a fault turns red (lab 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import GREEN, GREY, MINT, PEACH, VERMILLION, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def examine(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `faults.examine`, of one look or of several: a row a check, a column a look."""
    from matplotlib.patches import Rectangle

    looks, names = list(dict.fromkeys(df["look"])), list(dict.fromkeys(df["check"]))
    red = df[~df["ok"]].groupby("look")["check"].size()
    counted = ", ".join(f"{look}: {int(red.get(look, 0))}" for look in looks)
    axes = new_axes(1.0 + 0.34 * len(names), title)
    for row in df.itertuples():
        x, y = looks.index(row.look), names.index(row.check)
        box: dict[str, Any] = {"facecolor": MINT, "edgecolor": GREEN, "linewidth": 1}
        if not row.ok:
            box = {"facecolor": PEACH, "edgecolor": VERMILLION, "linewidth": 1, "hatch": "///"}
        axes.add_patch(Rectangle((x + 0.02, y + 0.07), 0.96, 0.86, **box))
        axes.text(
            x + 0.5,
            y + 0.5,
            f"{'✓' if row.ok else '✗'} {row.found}",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="normal" if row.ok else "bold",
            bbox=None if row.ok else {"facecolor": PEACH, "edgecolor": "none", "pad": 1.2},
        )
    axes.set_xlim(0, len(looks))
    axes.set_ylim(len(names), 0)
    axes.set_xticks([x + 0.5 for x in range(len(looks))], looks)
    axes.set_yticks([y + 0.5 for y in range(len(names))], names, fontfamily="monospace")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    head = title or f"Red checks, by look: {counted}"
    axes.set_title(head, loc="left", fontsize=12, fontweight="bold", pad=28)
    return axes


def signatures(df: pd.DataFrame, *, title: str = "Which checks each fault turns red") -> Axes:
    """Draw `faults.signatures`: a row a fault, a column a check, a cross where it turns red."""
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
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(kinds), frameon=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(faults) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="left", fontfamily="monospace")
    axes.set_yticks(range(len(faults)), faults, fontfamily="monospace")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    axes.grid(alpha=0.2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    return axes
