"""Plots of who reaches whom and of what the packet filters count (labs 03 and 04)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    draws,
    matrix,
    new_axes,
    over_columns,
    whole_numbers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_LINES = [(VERMILLION, "o", "-"), (BLUE, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":")]
_NETWORKS = [(ORANGE, "///"), (BLUE, ""), (GREEN, "..")]


@draws("experiments.reach")
def reach(df: pd.DataFrame, *, title: str = "Who reaches whom") -> Axes:
    """Draw `experiments.reach`: from each place (row) to each target, network and protocol (column)."""
    networks = list(dict.fromkeys(df["network"]))
    groups = [(network, protocol) for network in networks for protocol in ("ICMP", "TCP")]
    order = {group: number for number, group in enumerate(groups)}
    ranks = [order[pair] for pair in zip(df["network"], df["protocol"], strict=True)]
    df = df.assign(group_rank=ranks).sort_values("group_rank", kind="stable")
    targets = list(dict.fromkeys(df["target"]))
    # The order of rows is that of the probes, which the sorting by group keeps.
    heads = [f"to {target}" for _ in groups for target in targets]
    gaps = [len(targets) * number - 1 for number in range(1, len(groups))]
    axes = new_axes(1.5 + 0.5 * df["place"].nunique(), title, pad=58)
    matrix(df, axes, row="place", columns=["group_rank", "target"], heads=heads, gap_after=gaps)
    tools = {"ICMP": "ping", "TCP": "curl"}
    over_columns(axes, [f"{network}\n{tools[protocol]} ({protocol})" for network, protocol in groups])
    return axes


@draws("experiments.ports")
def ports(df: pd.DataFrame, *, title: str = "Which port answers after which step") -> Axes:
    """Draw `experiments.ports` of several steps: one row per step, one column per port."""
    heads = [f"port {port}" for port in dict.fromkeys(df["port"])]
    axes = new_axes(1.2 + 0.5 * df["step"].nunique(), title)
    matrix(df, axes, row="step", columns=["port"], heads=heads)
    return axes


@draws("experiments.published")
def published(df: pd.DataFrame, *, title: str = "Who gets in where") -> Axes:
    """Draw `experiments.published`: one column per way and node asked, one row per step.

    Of a single step there is a row for each node that asks.
    """
    ways = dict(zip(df["way"], df["port"], strict=True))
    entries = list(dict.fromkeys(df["entry"]))
    row = "step" if len(set(df["step"])) > 1 else "node"
    heads = [f"at {entry}" for _ in ways for entry in entries]
    axes = new_axes(1.5 + 0.5 * df[row].nunique(), title, pad=44)
    gaps = [len(entries) * number - 1 for number in range(1, len(ways))]
    matrix(df, axes, row=row, columns=["way", "entry"], heads=heads, gap_after=gaps)
    over_columns(axes, [f"{way}, port {port}" for way, port in ways.items()])
    return axes


@draws("experiments.drops")
def drops(df: pd.DataFrame, *, title: str = "TCP packets dropped, by chain") -> Axes:
    """Draw `experiments.drops`: packets dropped against curls made, one line per chain."""
    axes = new_axes(3.8, title)
    ends: dict[float, list[str]] = {}
    df = df.sort_values("requests", kind="stable")
    lines = df.groupby(["place", "chain"], sort=False)
    for ((place, chain), line), (colour, marker, dash) in zip(lines, _LINES * 9, strict=False):
        label = f"{chain} of {str(place).removesuffix(' sandbox')}"
        axes.plot(
            line["requests"],
            line["packets"],
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=2,
            markersize=8,
            label=label,
        )
        ends.setdefault(float(line["packets"].iloc[-1]), []).append(label)
    right = float(df["requests"].max())
    for height, labels in ends.items():
        axes.annotate(
            "\n".join(f"{height:g} in {label}" for label in labels),
            (right, height),
            xytext=(12, 0),
            textcoords="offset points",
            va="bottom" if len(labels) > 2 else "center",
            annotation_clip=False,
        )
    axes.set_xlabel("curls from the source to the target")
    axes.set_ylabel("packets counted by DROP rules for TCP")
    axes.set_xticks(sorted(set(df["requests"])))
    axes.set_xlim(-0.1, right * 1.02 + 0.1)
    axes.set_ylim(bottom=-0.4)
    axes.grid(axis="y")
    return axes


@draws("experiments.plumbing")
def plumbing(df: pd.DataFrame, *, title: str = "What each network has for one path") -> Axes:
    """Draw `experiments.plumbing`: for each piece, how many each network has."""
    pieces = list(dict.fromkeys(df["piece"]))[::-1]
    networks = list(dict.fromkeys(df["network"]))
    axes = new_axes(1.2 + 0.75 * len(pieces), title)
    height = 0.8 / len(networks)
    for number, (network, (colour, hatch)) in enumerate(zip(networks, _NETWORKS, strict=False)):
        mine = df[df["network"] == network].set_index("piece")["count"]
        for y, piece in enumerate(pieces):
            count = int(mine[piece])
            middle = y + 0.4 - height * (number + 0.5)
            axes.barh(middle, count, height * 0.9, color=colour, hatch=hatch)
            axes.text(count + 0.06, middle, f"{count}  on {network}", va="center")
    axes.set_yticks(range(len(pieces)), pieces)
    axes.tick_params(length=0)
    axes.set_xlim(0, float(df["count"].max()) * 1.3 + 0.5)
    axes.set_xlabel("how many were found")
    whole_numbers(axes.xaxis)
    return axes
