"""Plots of which technique acts where (lab 11)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from labkit.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDTH, matrix, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLOURS = {"DNS": PURPLE, "iptables": ORANGE, "NAT": BLUE, "IPVS": GREEN, "ARP": SKY}


def techniques(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.techniques`: a panel a request, a row a technique, a column a place.

    A cell has the values that the technique gave there; an empty one is marked by a dot.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    acted = df[df["count"] > 0]
    requests = list(dict.fromkeys(df["request"]))
    rows = list(df["technique"].cat.categories)
    words = {
        key: _words(cell)
        for key, cell in acted.groupby(["request", "technique", "place"], observed=True)
    }
    tall = [
        max([w.count("\n") + 1 for (_, t, _), w in words.items() if t == row] or [1]) for row in rows
    ]
    edges = [sum(tall[:n]) for n in range(len(rows) + 1)]
    height = (1.0 + 0.24 * edges[-1]) * len(requests) + 0.5
    figure, panels = plt.subplots(
        len(requests), 1, figsize=(WIDTH, height), squeeze=False, layout="constrained"
    )
    for axes, request in zip(panels[:, 0], requests, strict=True):
        mine = acted[acted["request"] == request]
        places = list(dict.fromkeys(mine["place"]))
        for y, row in enumerate(rows):
            for x, place in enumerate(places):
                word = words.get((request, row, place))
                middle = (edges[y] + edges[y + 1]) / 2
                if word:
                    box = Rectangle((x + 0.02, edges[y] + 0.08), 0.96, tall[y] - 0.16)
                    box.set_edgecolor(_COLOURS[row])
                    box.set_facecolor((*box.get_edgecolor()[:3], 0.14))
                    axes.add_patch(box)
                axes.text(
                    x + 0.5,
                    middle,
                    word or "·",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="black" if word else GREY,
                )
        axes.set_xlim(0, max(len(places), 1))
        axes.set_ylim(edges[-1], 0)
        heads = [f"{place}".removesuffix(" sandbox").replace("/", "\n") for place in places]
        axes.set_xticks([x + 0.5 for x in range(len(places))], heads)
        axes.set_yticks([(a + b) / 2 for a, b in pairwise(edges)], rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=10)
        axes.set_title(request, loc="left", fontsize=11, fontweight="bold", pad=10)
        for spine in axes.spines.values():
            spine.set_visible(False)
    title = title or "Which technique acted where, and with which value"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    first: Axes = panels[0, 0]
    return first


def _words(cell: pd.DataFrame) -> str:
    """Say in a few short lines what a technique did at a place."""
    technique = str(cell["technique"].iloc[0])
    lines = []
    for row in cell.astype({"value": object}).itertuples():
        target = str(row.what).partition(" -j ")[2].partition(" ")[0]
        value = str(row.value) if isinstance(row.value, str) else ""
        lines.append(f"{target} {value}".strip() if technique in ("iptables", "NAT") else value)
    return "\n".join(dict.fromkeys(lines))


def ablation(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.ablation`: what was taken away (row) against how one asked (column)."""
    heads = list(dict.fromkeys(df["request"]))
    cut = df[~df["taken"].str.startswith("nothing")]
    lost = cut.groupby("request")["reached"].agg(lambda reached: int((~reached).sum()))
    told = ", ".join(f"{head.removeprefix('by ')}: {lost[head]}" for head in heads)
    title = title or f"Cuts that stop a request by {told}"
    axes = new_axes(1.2 + 0.5 * df["taken"].nunique(), title)
    matrix(df.assign(protocol="TCP"), axes, row="taken", columns=["request"], heads=heads)
    cuts = [t if t.startswith("nothing") else f"without {t}" for t in dict.fromkeys(df["taken"])]
    axes.set_yticks(axes.get_yticks(), cuts)
    return axes
