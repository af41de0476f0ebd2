"""Plots of the way of a request to a published port (lab 02)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    MIDDLE,
    ORANGE,
    PEACH,
    PURPLE,
    SMALL,
    VERMILLION,
    draws,
    figure_title,
    heads_on_top,
    new_axes,
    new_figure,
    whole_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    Looks = Mapping[str, tuple[str, str]]  # task -> colour and hatch

# What a column of the picture counts: only hops that count the same thing stand beside each other.
_UNITS = {
    "connections": ("connections", None),
    "packets to the tasks": ("packets", "to the task"),
    "packets to the client": ("packets", "to the client"),
}
_LOOKS = [(BLUE, ""), (ORANGE, "///"), (GREEN, ".."), (PURPLE, "xx"), (VERMILLION, "\\\\\\")]
# Where the columns of `translations` stand, and their heads.
_ENDS = {0.0: "comes from", 1.0: "comes to", 2.2: "goes on from", 3.2: "goes on to"}


@draws("experiments.hops")
def hops(df: pd.DataFrame, *, title: str = "What each hop counted") -> Axes:
    """Draw `experiments.hops` of one or more nodes: one line of panels per node, one bar per hop."""
    from matplotlib.patches import Patch

    vias, order = list(dict.fromkeys(df["via"])), list(dict.fromkeys(df["hop"]))
    served = df[df["hop"] == "answers"]
    homes = dict(zip(served["task"], served["node"], strict=True))
    looks = dict(zip(homes, _LOOKS * len(homes), strict=False))
    figure = new_figure((0.9 + 0.3 * len(order)) * len(vias) + 0.6)
    parts = figure.subfigures(len(vias), 1, squeeze=False)[:, 0]
    for part, via in zip(parts, vias, strict=True):
        mine = df[df["via"] == via]
        panels = part.subplots(1, len(_UNITS), sharey=True)
        for axes, (head, (counted, way)) in zip(panels, _UNITS.items(), strict=True):
            chosen = mine[mine["counted"].eq(counted) & (mine["way"].eq(way) if way else True)]
            _draw_unit(axes, chosen, order, looks)
            axes.set_title(head, loc="center", fontsize=10, fontweight="normal")
        panels[0].set_yticks(range(len(order)), [f"{_where(mine, hop)}  {hop}" for hop in order])
        here = ", ".join(task for task, node in homes.items() if node == via)
        asked = f"{mine['requests'].iloc[0]} requests to {via}, which runs {here or 'no task'}"
        figure_title(part, f"{asked}; {mine['answered'].iloc[0]} answered", fontsize=MIDDLE)
    keys = [Patch(facecolor=GREY, label="all tasks together")]
    for task, (colour, hatch) in looks.items():
        keys.append(Patch(facecolor=colour, hatch=hatch, label=f"{task} on {homes[task]}"))
    parts[-1].legend(handles=keys, loc="outside lower center", ncols=len(keys))
    figure_title(figure, title)
    first: Axes = parts[0].axes[0]
    return first


def _draw_unit(axes: Axes, df: pd.DataFrame, order: Sequence[str], looks: Looks) -> None:
    """Draw the bars of one unit, one per hop, and the word at the end of each."""
    most = max(float(df.groupby("hop")["rise"].sum().max()), 1.0) if len(df) else 1.0
    for y, hop in enumerate(order):
        rows = df[df["hop"] == hop]
        total = _draw_shares(axes, y, rows, looks, most)
        word = "no such rule" if rows["rise"].isna().any() else f"{total:g}"
        axes.text(
            total + most * 0.03,
            y,
            "-" if rows.empty else word,
            va="center",
            fontsize=SMALL,
            fontweight="normal" if rows.empty else "bold",
            color=GREY if rows.empty else "black",
        )
    axes.set_xlim(0, most * 1.3)
    whole_numbers(axes.xaxis, 5)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    axes.tick_params(axis="x", labelsize=8)


def _draw_shares(axes: Axes, y: int, rows: pd.DataFrame, looks: Looks, most: float) -> float:
    """Draw the tasks' shares of one hop, one behind the other; returns their sum."""
    left = 0.0
    for row in rows[rows["rise"].notna()].itertuples():
        share = float(str(row.rise))
        colour, hatch = looks.get(str(row.task), (GREY, ""))
        axes.barh(y, share, 0.72, left=left, color=colour, hatch=hatch)
        if len(rows) > 1 and share > 0.14 * most:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            middle = left + share / 2
            axes.text(middle, y, f"{share:g}", ha="center", va="center", fontsize=8, bbox=box)
        left += share
    return left


def _where(df: pd.DataFrame, hop: str) -> str:
    """Name the place of a hop in a few words."""
    places = list(dict.fromkeys(df[df["hop"] == hop]["place"]))
    if hop == "VXLAN":
        return f"wire at {places[0]}"
    return places[0].partition("/")[2] or places[0] if len(places) == 1 else "each task"


@draws("experiments.translations")
def translations(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.translations`: what comes to each place, what goes on, what was changed."""
    counts = {
        what: int((df[column] != df[f"new_{column}"]).sum())
        for what, column in (
            ("source address", "source"),
            ("destination address", "destination"),
            ("destination port", "destination_port"),
        )
    }
    counted = ", ".join(f"{what} {count}" for what, count in counts.items())
    axes = new_axes(1.6 + 0.85 * len(df), "")
    for y, row in enumerate(df.to_dict("records")):
        for x, end in zip(_ENDS, ("source", "destination") * 2, strict=True):
            _draw_end(axes, x, y, row, end, new=x > 1)
        arrow = {"arrowstyle": "->", "lw": 2, "edgecolor": "black"}
        axes.annotate("", (2.25, y + 0.5), (1.95, y + 0.5), arrowprops=arrow)
        axes.axhline(y + 1, color=GREY, linewidth=0.6)
    axes.set_xlim(0, 4.2)
    axes.set_ylim(len(df), 0)
    axes.set_xticks([x + 0.5 for x in _ENDS], list(_ENDS.values()))
    axes.set_yticks([y + 0.5 for y in range(len(df))], [str(place) for place in df["place"]])
    heads_on_top(axes)
    figure_title(axes.figure, title or f"How many places change what: {counted}")
    return axes


def _draw_end(axes: Axes, x: float, y: int, row: Mapping[Any, Any], end: str, *, new: bool) -> None:
    """Write address and port of one end of a connection; what a place has changed is framed."""
    for column, down, head in ((end, 0.3, ""), (f"{end}_port", 0.66, "port ")):
        value = row[f"new_{column}" if new else column]
        differs = new and row[column] != value
        box: dict[str, Any] = {"facecolor": PEACH, "edgecolor": VERMILLION, "pad": 2.5}
        axes.text(
            x + 0.5,
            y + down,
            f"{'new: ' if differs else ''}{head}{value}",
            ha="center",
            va="center",
            fontfamily="DejaVu Sans Mono",
            fontweight="bold" if differs else "normal",
            bbox=box if differs else None,
        )
