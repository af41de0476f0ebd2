"""Plots of what a swarm is made of (lab 01)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDTH, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = [
    ("ingress_sbox", ORANGE, "///"),
    ("overlay", BLUE, ""),
    ("load balancer", SKY, "..."),
    ("task", GREEN, "xx"),
]


def _sheet(
    axes: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    words: Mapping[tuple[str, str], str],
    colours: Mapping[tuple[str, str], str],
) -> Axes:
    """Draw a table: a framed cell with its word where there is one, a dash where there is none."""
    from matplotlib.patches import Rectangle

    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            word = words.get((row, column))
            if word is None:
                axes.text(x + 0.5, y + 0.5, "-", ha="center", va="center", color=GREY, fontsize=11)
                continue
            colour = colours[row, column]
            box = Rectangle((x + 0.03, y + 0.07), 0.94, 0.86, edgecolor=colour, linewidth=1.5)
            box.set_facecolor((*box.get_edgecolor()[:3], 0.14))
            axes.add_patch(box)
            axes.text(x + 0.5, y + 0.5, word, ha="center", va="center", fontsize=10)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], [str(column) for column in columns])
    axes.set_yticks([y + 0.5 for y in range(len(rows))], [str(row) for row in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


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
    axes = new_axes(1.3 + 0.65 * labels.nunique(), title)
    _sheet(axes, list(labels.unique()), columns, words, colours)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, fontweight="bold", pad=14)
    return axes


def namespaces(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.namespaces` of several steps: a panel a node, a bar a step, parts by kind."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    steps, nodes = list(dict.fromkeys(df["step"])), sorted(set(df["node"]))
    counts = df.groupby(["node", "step", "kind"]).size()
    most = int(df.groupby(["node", "step"]).size().max())
    figure, panels = plt.subplots(
        1,
        len(nodes),
        figsize=(WIDTH, 1.7 + 0.45 * len(steps)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, node in zip(panels[0], nodes, strict=True):
        left = [0] * len(steps)
        for kind, colour, hatch in _KINDS:
            widths = [int(counts.get((node, step, kind), 0)) for step in steps]
            axes.barh(
                range(len(steps)),
                widths,
                0.7,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=kind,
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in enumerate(left):
            axes.text(total + 0.15, y, str(total), va="center", fontsize=10, fontweight="bold")
        axes.set_title(node, fontsize=11)
        axes.set_xlim(0, most * 1.15 + 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(axis="y", length=0, labelsize=10)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    first: Axes = panels[0][0]
    first.set_yticks(range(len(steps)), steps)
    first.invert_yaxis()
    panels[0][len(nodes) // 2].set_xlabel("namespaces in /run/docker/netns")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10
    )
    title = title or "Which namespaces each node has, step by step"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return first


def namespace_views(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.namespace_views`: what each place (row) sees of each network (column).

    Places of one namespace have one colour, and its number stands beside them.
    """
    inodes = list(dict.fromkeys(df["inode"]))
    colours_of = dict(zip(inodes, [BLUE, ORANGE, GREEN, PURPLE, SKY, GREY] * len(inodes), strict=False))
    shown = df[df["network"] != "loopback"]
    networks = list(dict.fromkeys(shown["network"]))
    places = list(dict.fromkeys(zip(df["place"], df["inode"], strict=True)))
    labels = {place: f"{place}\n(namespace {inode})" for place, inode in places}
    words, colours = {}, {}
    for (place, network), cell in shown.groupby(["place", "network"], sort=False):
        key = labels[str(place)], str(network)
        words[key] = "\n".join(cell["address"])
        colours[key] = colours_of[cell["inode"].iloc[0]]
    title = title or f"{len(places)} places, {len(inodes)} namespaces: the addresses that each one sees"
    axes = new_axes(1.2 + 0.62 * len(places), title)
    _sheet(axes, list(labels.values()), networks, words, colours)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, fontweight="bold", pad=14)
    return axes


def leave_and_rejoin(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.leave_and_rejoin`: what was looked for (row) at each step (column)."""
    steps = list(dict.fromkeys(df["step"]))
    looks = {"socket": ("open", BLUE), "namespace": ("there", ORANGE), "answer": ("answers", GREEN)}
    rows: list[str] = []
    words: dict[tuple[str, str], str] = {}
    colours: dict[tuple[str, str], str] = {}
    for thing, (word, colour) in looks.items():
        mine = df[df["thing"] == thing].sort_values("name", kind="stable")
        for step, name, count in zip(mine["step"], mine["name"], mine["count"], strict=True):
            label = f"socket {name}" if thing == "socket" else str(name)
            rows += [label] if label not in rows else []
            if count:
                words[label, step] = f"{count} {word}" if count > 1 else word
                colours[label, step] = colour
    node = str(df[df["thing"] == "socket"]["node"].iloc[0])
    axes = new_axes(1.1 + 0.36 * len(rows), title or f"What {node} has, and whether the others answer")
    _sheet(axes, rows, steps, words, colours)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, fontweight="bold", pad=14)
    return axes
