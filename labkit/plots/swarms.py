"""Plots of what a swarm is made of (lab 01)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    MIDDLE,
    ORANGE,
    PURPLE,
    SKY,
    add_cell,
    as_sheet,
    draws,
    figure_title,
    hide_spines,
    new_axes,
    new_panels,
    tint,
    whole_numbers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = [
    ("ingress_sbox", ORANGE, "///"),
    ("overlay", BLUE, ""),
    ("load balancer", SKY, "..."),
    ("task", GREEN, "xx"),
]
_THINGS = {"socket": ("open", BLUE), "namespace": ("there", ORANGE), "answer": ("answers", GREEN)}
_PAD = 14  # points between a sheet's heads and the title


def _draw_sheet(
    axes: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    words: Mapping[tuple[str, str], str],
    colours: Mapping[tuple[str, str], str],
) -> None:
    """Draw a sheet: a framed cell with its word where there is one, a dash where there is none."""
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            word = words.get((row, column))
            if word is None:
                axes.text(x + 0.5, y + 0.5, "-", ha="center", va="center", color=GREY, fontsize=MIDDLE)
                continue
            tint(add_cell(axes, x, y, gap=(0.03, 0.07), linewidth=1.5), colours[row, column])
            axes.text(x + 0.5, y + 0.5, word, ha="center", va="center")
    as_sheet(axes, columns, rows)


@draws("experiments.sockets")
def sockets(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.sockets`: nodes against ports, and the program that holds each socket."""
    heads = df["port"].astype("str") + "\n" + df["protocol"]
    labels = df["node"] + "\n(" + df["role"] + ")"
    words, colours = {}, {}
    for label, head, program in zip(labels, heads, df["program"].fillna(""), strict=True):
        words[label, head] = program or "the kernel,\nno program"
        colours[label, head] = BLUE if program else ORANGE
    columns = list(heads[df["port"].sort_values(kind="stable").index].unique())
    title = title or "Which port is open on which node, and who holds it"
    axes = new_axes(1.3 + 0.65 * labels.nunique(), title, pad=_PAD)
    _draw_sheet(axes, list(labels.unique()), columns, words, colours)
    return axes


@draws("experiments.namespaces")
def namespaces(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.namespaces` of several steps: one panel per node, one bar per step."""
    steps, nodes = list(dict.fromkeys(df["step"])), sorted(set(df["node"]))
    counts = df.groupby(["node", "step", "kind"]).size()
    most = int(df.groupby(["node", "step"]).size().max())
    figure, panels = new_panels(1, len(nodes), 1.7 + 0.45 * len(steps), sharey=True)
    for axes, node in zip(panels[0], nodes, strict=True):
        left = [0] * len(steps)
        for kind, colour, hatch in _KINDS:
            widths = [int(counts.get((node, step, kind), 0)) for step in steps]
            axes.barh(range(len(steps)), widths, 0.7, left=left, color=colour, hatch=hatch, label=kind)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in enumerate(left):
            axes.text(total + 0.15, y, str(total), va="center", fontweight="bold")
        axes.set_title(node, loc="center", fontsize=MIDDLE, fontweight="normal")
        axes.set_xlim(0, most * 1.15 + 0.4)
        whole_numbers(axes.xaxis)
        axes.tick_params(axis="y", length=0)
        hide_spines(axes, "left")
    first: Axes = panels[0][0]
    first.set_yticks(range(len(steps)), steps)
    first.invert_yaxis()
    panels[0][len(nodes) // 2].set_xlabel("namespaces in /run/docker/netns")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure_title(figure, title or "Which namespaces each node has, step by step")
    return first


@draws("experiments.namespace_views")
def namespace_views(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.namespace_views`: what each place (row) sees of each network (column).

    Places of one namespace have one colour, and its number stands beside them.
    """
    inodes = list(dict.fromkeys(df["inode"]))
    colours_of = dict(zip(inodes, [BLUE, ORANGE, GREEN, PURPLE, SKY, GREY] * len(inodes), strict=False))
    shown = df[df["network"] != "loopback"]
    networks = [str(network) for network in dict.fromkeys(shown["network"])]
    places = list(dict.fromkeys(zip(df["place"], df["inode"], strict=True)))
    labels = {place: f"{place}\n(namespace {inode})" for place, inode in places}
    words, colours = {}, {}
    for (place, network), cell in shown.groupby(["place", "network"], sort=False):
        key = labels[str(place)], str(network)
        words[key] = "\n".join(cell["address"])
        colours[key] = colours_of[cell["inode"].iloc[0]]
    title = title or f"{len(places)} places, {len(inodes)} namespaces: the addresses that each one sees"
    axes = new_axes(1.2 + 0.62 * len(places), title, pad=_PAD)
    _draw_sheet(axes, list(labels.values()), networks, words, colours)
    return axes


@draws("experiments.leave_and_rejoin")
def leave_and_rejoin(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.leave_and_rejoin`: what was looked for (row) at each step (column)."""
    steps = list(dict.fromkeys(df["step"]))
    rows: list[str] = []
    words: dict[tuple[str, str], str] = {}
    colours: dict[tuple[str, str], str] = {}
    for thing, (word, colour) in _THINGS.items():
        mine = df[df["thing"] == thing].sort_values("name", kind="stable")
        for step, name, count in zip(mine["step"], mine["name"], mine["count"], strict=True):
            label = f"socket {name}" if thing == "socket" else str(name)
            rows += [label] if label not in rows else []
            if count:
                words[label, step] = f"{count} {word}" if count > 1 else word
                colours[label, step] = colour
    node = str(df[df["thing"] == "socket"]["node"].iloc[0])
    title = title or f"What {node} has, and whether the others answer"
    axes = new_axes(1.1 + 0.36 * len(rows), title, pad=_PAD)
    _draw_sheet(axes, rows, steps, words, colours)
    return axes
