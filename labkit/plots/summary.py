"""Plots of which technique acts where (lab 11)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    MIDDLE,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    draws,
    figure_title,
    heads_on_top,
    matrix,
    new_axes,
    new_panels,
    tint,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_COLOURS = {"DNS": PURPLE, "iptables": ORANGE, "NAT": BLUE, "IPVS": GREEN, "ARP": SKY}


@draws("experiments.techniques")
def techniques(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.techniques`: one panel per request, techniques (row) and places (column).

    A cell has the values that the technique gave there; an empty one is marked by a dot.
    """
    acted = df[df["count"] > 0]
    requests = list(dict.fromkeys(df["request"]))
    names = list(df["technique"].cat.categories)
    words = {
        (str(request), str(technique), str(place)): _words(cell)
        for (request, technique, place), cell in acted.groupby(
            ["request", "technique", "place"], observed=True
        )
    }
    # A row of cells is as high as the most lines in it, in all panels alike.
    lines = [
        max([word.count("\n") + 1 for (_, t, _), word in words.items() if t == name] or [1])
        for name in names
    ]
    edges = [sum(lines[:n]) for n in range(len(names) + 1)]
    height = (1.0 + 0.24 * edges[-1]) * len(requests) + 0.5
    figure, panels = new_panels(len(requests), 1, height)
    for axes, request in zip(panels[:, 0], requests, strict=True):
        places = list(dict.fromkeys(acted[acted["request"] == request]["place"]))
        mine = {(t, place): word for (r, t, place), word in words.items() if r == request}
        _draw_techniques(axes, names, places, mine, edges)
        axes.set_title(request, fontsize=MIDDLE, pad=10)
    figure_title(figure, title or "Which technique acted where, and with which value")
    first: Axes = panels[0, 0]
    return first


def _draw_techniques(
    axes: Axes,
    names: Sequence[str],
    places: Sequence[str],
    words: Mapping[tuple[str, str], str],
    edges: Sequence[int],
) -> None:
    """Draw the cells of one request; `edges` are the heights where the rows begin and end."""
    from matplotlib.patches import Rectangle

    for name, (top, bottom) in zip(names, pairwise(edges), strict=True):
        for x, place in enumerate(places):
            word = words.get((name, place))
            if word:
                cell = axes.add_patch(Rectangle((x + 0.02, top + 0.08), 0.96, bottom - top - 0.16))
                tint(cell, _COLOURS[name])
            axes.text(
                x + 0.5,
                (top + bottom) / 2,
                word or "·",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="black" if word else GREY,
            )
    axes.set_xlim(0, max(len(places), 1))
    axes.set_ylim(edges[-1], 0)
    heads = [f"{place}".removesuffix(" sandbox").replace("/", "\n") for place in places]
    axes.set_xticks([x + 0.5 for x in range(len(places))], heads)
    axes.set_yticks([(top + bottom) / 2 for top, bottom in pairwise(edges)], names)
    heads_on_top(axes)


def _words(cell: pd.DataFrame) -> str:
    """Return in a few short lines what a technique did at a place."""
    technique = str(cell["technique"].iloc[0])
    lines = []
    for row in cell.astype({"value": object}).itertuples():
        target = str(row.what).partition(" -j ")[2].partition(" ")[0]
        value = str(row.value) if isinstance(row.value, str) else ""
        lines.append(f"{target} {value}".strip() if technique in ("iptables", "NAT") else value)
    return "\n".join(dict.fromkeys(lines))


@draws("experiments.ablation")
def ablation(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.ablation`: what was taken away (row) against how one asked (column)."""
    heads = list(dict.fromkeys(df["request"]))
    cut = df[~df["taken"].str.startswith("nothing")]
    lost = cut.groupby("request")["reached"].agg(lambda reached: int((~reached).sum()))
    counted = ", ".join(f"{head.removeprefix('by ')}: {lost[head]}" for head in heads)
    title = title or f"Cuts that stop a request by {counted}"
    axes = new_axes(1.2 + 0.5 * df["taken"].nunique(), title)
    matrix(df.assign(protocol="TCP"), axes, row="taken", columns=["request"], heads=heads)
    cuts = [t if t.startswith("nothing") else f"without {t}" for t in dict.fromkeys(df["taken"])]
    axes.set_yticks(axes.get_yticks(), cuts)
    return axes
