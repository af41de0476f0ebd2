"""Plots of the way of a request to a published port (lab 02)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import BLUE, GREEN, GREY, ORANGE, PEACH, PURPLE, VERMILLION, WIDTH, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# What a column of the picture counts: only hops that count the same thing stand beside each other.
_UNITS = {
    "connections": ("connections", None),
    "packets to the tasks": ("packets", "to the task"),
    "packets to the client": ("packets", "to the client"),
}
_LOOKS = [(BLUE, ""), (ORANGE, "///"), (GREEN, ".."), (PURPLE, "xx"), (VERMILLION, "\\\\\\")]


def hops(df: pd.DataFrame, *, title: str = "What each hop counted") -> Axes:
    """Draw `experiments.hops` of one or more nodes: panels of a node in a row, a bar a hop."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    vias, order = list(dict.fromkeys(df["via"])), list(dict.fromkeys(df["hop"]))
    served = df[df["hop"] == "answers"]
    homes = dict(zip(served["task"], served["node"], strict=True))
    looks = dict(zip(homes, _LOOKS * len(homes), strict=False))
    height = 0.9 + 0.3 * len(order)
    figure = plt.figure(figsize=(WIDTH, height * len(vias) + 0.6), layout="constrained")
    parts = figure.subfigures(len(vias), 1, squeeze=False)[:, 0]
    for part, via in zip(parts, vias, strict=True):
        mine = df[df["via"] == via]
        panels = part.subplots(1, len(_UNITS), sharey=True)
        for axes, (head, (counted, way)) in zip(panels, _UNITS.items(), strict=True):
            chosen = mine[mine["counted"].eq(counted) & (mine["way"].eq(way) if way else True)]
            _bars(axes, chosen, order, looks)
            axes.set_title(head, fontsize=10)
        panels[0].set_yticks(range(len(order)), [f"{_where(mine, hop)}  {hop}" for hop in order])
        here = ", ".join(task for task, node in homes.items() if node == via)
        told = f"{mine['requests'].iloc[0]} requests to {via}, which runs {here or 'no task'}"
        part.suptitle(
            f"{told}; {mine['answered'].iloc[0]} answered",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
        )
    keys = [Patch(facecolor=GREY, edgecolor="white", label="all tasks together")]
    for task, (colour, hatch) in looks.items():
        label = f"{task} on {homes[task]}"
        keys.append(Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label))
    parts[-1].legend(
        handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=10
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    first: Axes = parts[0].axes[0]
    return first


def _bars(axes: Axes, df: pd.DataFrame, order: list[str], looks: dict[str, tuple[str, str]]) -> None:
    """Draw one unit's bars, with the tasks' shares one behind the other."""
    from matplotlib.ticker import MaxNLocator

    most = max(float(df.groupby("hop")["rise"].sum().max()), 1.0) if len(df) else 1.0
    for y, hop in enumerate(order):
        rows = df[df["hop"] == hop]
        left = 0.0
        for row in rows[rows["rise"].notna()].itertuples():
            share = float(str(row.rise))
            colour, hatch = looks.get(str(row.task), (GREY, ""))
            axes.barh(y, share, 0.72, left=left, color=colour, hatch=hatch, edgecolor="white")
            if len(rows) > 1 and share > 0.14 * most:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
                axes.text(
                    left + share / 2, y, f"{share:g}", ha="center", va="center", fontsize=8, bbox=box
                )
            left += share
        word = "no such rule" if rows["rise"].isna().any() else f"{left:g}"
        axes.text(
            left + most * 0.03,
            y,
            "-" if rows.empty else word,
            va="center",
            fontsize=9,
            fontweight="normal" if rows.empty else "bold",
            color=GREY if rows.empty else "black",
        )
    axes.set_xlim(0, most * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _where(df: pd.DataFrame, hop: str) -> str:
    """Name the place of a hop in a few words."""
    places = list(dict.fromkeys(df[df["hop"] == hop]["place"]))
    if hop == "VXLAN":
        return f"wire at {places[0]}"
    return places[0].partition("/")[2] or places[0] if len(places) == 1 else "each task"


def translations(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.translations`: what comes to each place, what goes on, what was changed."""
    ends = ("source", "destination")
    counts = {
        what: int((df[column] != df[f"new_{column}"]).sum())
        for what, column in (
            ("source address", "source"),
            ("destination address", "destination"),
            ("destination port", "destination_port"),
        )
    }
    told = ", ".join(f"{what} {count}" for what, count in counts.items())
    axes = new_axes(1.6 + 0.85 * len(df), "")
    heads = {0.0: "comes from", 1.0: "comes to", 2.2: "goes on from", 3.2: "goes on to"}
    for y, row in enumerate(df.to_dict("records")):
        for x, end in zip(heads, ends * 2, strict=True):
            new = "new_" if x > 1 else ""
            parts = [(f"{end}", 0.3), (f"{end}_port", 0.66)]
            for column, down in parts:
                differs = bool(new) and row[column] != row[f"new_{column}"]
                text = f"{'' if down < 0.5 else 'port '}{row[new + column]}"
                box: dict[str, Any] = {"facecolor": PEACH, "edgecolor": VERMILLION, "pad": 2.5}
                axes.text(
                    x + 0.5,
                    y + down,
                    f"new: {text}" if differs else text,
                    ha="center",
                    va="center",
                    fontsize=10,
                    fontfamily="DejaVu Sans Mono",
                    fontweight="bold" if differs else "normal",
                    bbox=box if differs else None,
                )
        axes.annotate("", (2.25, y + 0.5), (1.95, y + 0.5), arrowprops={"arrowstyle": "->", "lw": 2})
        axes.axhline(y + 1, color=GREY, linewidth=0.6)
    axes.set_xlim(0, 4.2)
    axes.set_ylim(len(df), 0)
    axes.set_xticks([x + 0.5 for x in heads], list(heads.values()))
    axes.set_yticks([y + 0.5 for y in range(len(df))], [str(place) for place in df["place"]])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.figure.suptitle(
        title or f"How many places change what: {told}",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    return axes
