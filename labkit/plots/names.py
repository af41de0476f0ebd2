"""Plots of what a name stands for (lab 06)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import BLUE, GREEN, GREY, MINT, PEACH, VERMILLION, WIDTH, last_number, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def lookups(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups` of several trials: a panel a name, a dot an address in a reply."""
    import matplotlib.pyplot as plt

    given = df[df["answer"].notna()]
    names = list(dict.fromkeys(df["name"]))
    several = [(name, given[given["name"] == name]["answer"].nunique()) for name in names]
    told = [f"{name} gave {count} address{'' if count == 1 else 'es'}" for name, count in several]
    title = title or f"In {df['trial'].nunique()} questions {', '.join(told)}"
    owner = dict(zip(given["answer"], given["owner"].astype(object), strict=True))
    addresses = sorted(owner, key=last_number, reverse=True)
    figure, panels = plt.subplots(
        1,
        len(names),
        figsize=(WIDTH, 1.7 + 0.55 * max(len(addresses), 1)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, name in zip(panels[0], names, strict=True):
        mine = given[given["name"] == name]
        for row in mine.itertuples():
            y = addresses.index(row.answer)
            first = row.position == 1
            axes.plot(
                row.trial,
                y,
                marker="o",
                markersize=10,
                color=BLUE,
                markerfacecolor=BLUE if first else "white",
                linestyle="none",
            )
        axes.set_title(f"{name}", fontsize=11, fontfamily="monospace")
        axes.set_xlabel("question number")
        axes.set_xlim(0.3, float(df["trial"].max()) + 0.7)
        axes.set_ylim(-0.6, len(addresses) - 0.4)
        axes.grid(axis="y", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        if mine.empty:
            axes.text(0.5, 0.5, "no address", ha="center", transform=axes.transAxes, color=GREY)
    left: Axes = panels[0][0]
    left.set_yticks(range(len(addresses)), [f"{a}  {owner[a]}" for a in addresses])
    figure.suptitle(
        f"{title}\n● first in the reply   ○ further down in the same reply",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    return left


def names(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups`: a row a name, a column a place, in each cell what came back."""
    from matplotlib.patches import Rectangle

    rows, places = list(dict.fromkeys(df["name"])), list(dict.fromkeys(df["place"]))
    known = df[df["answer"].notna()].groupby("place")["name"].nunique()
    counted = [f"{place} {int(known.get(place, 0))}" for place in places]
    title = title or f"Of {len(rows)} names, how many each place resolves: {', '.join(counted)}"
    axes = new_axes(1.0 + 0.42 * len(rows), title)
    for (name, place), cell in df.groupby(["name", "place"], sort=False):
        x, y = places.index(place), rows.index(name)
        whose = cell["owner"].dropna().drop_duplicates().sort_values()
        good = bool(cell["answer"].notna().any())
        word = ", ".join(whose) or ("an address" if good else "no address")
        box: dict[str, Any] = {"facecolor": MINT, "edgecolor": GREEN, "linewidth": 1}
        if not good:
            box = {"facecolor": PEACH, "edgecolor": VERMILLION, "linewidth": 1}
        axes.add_patch(Rectangle((x + 0.03, y + 0.08), 0.94, 0.84, **box))
        mark = "✓" if good else "✗"
        axes.text(x + 0.5, y + 0.5, f"{mark} {word}", ha="center", va="center", fontsize=10)
    axes.set_xlim(0, len(places))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(places))], [f"asked in {place}" for place in places])
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows, fontfamily="monospace")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=28)
    return axes
