"""The order of what follows from one change (lab 08)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    PURPLE_INK,
    SKY,
    SMALL,
    VERMILLION,
    draws,
    new_axes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_WORD: dict[str, Any] = {
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}
# The word that is shown on a lane from its event on: colour, hatch.
_BARS = {
    "in": (GREEN, ""),
    "weight 1": (BLUE, ""),
    "weight 0": (SKY, "////"),
    "started": (ORANGE, ""),
    "ready": (GREY, ""),
    "down": ("white", "xxxx"),
}
# Marker, colour, and the side of the word: SIGKILL may follow SIGTERM at once.
_MARKS = {
    "SIGTERM": ("v", "black", "right"),
    "SIGKILL": ("X", VERMILLION, "left"),
    "healthy": ("P", GREEN, "left"),
}
_HEADS = {"DNS": "in the DNS answer", "IPVS": "in IPVS", "container": "container"}


@draws("experiments.timeline")
def timeline(df: pd.DataFrame, *, title: str = "What follows from one command") -> Axes:
    """Draw `experiments.timeline`: lanes of each task that something happened to, requests below."""
    begin, end = float(df["time_s"].min()), float(df["time_s"].max())
    lanes = list(_lanes(df))
    kinds = [("request", "new connections"), ("kept", "kept connections")]
    axes = new_axes(1.7 + 0.3 * (len(lanes) + 2 * len(kinds)), title)
    for y, (_, source, rows) in enumerate(lanes):
        _draw_lane(axes, y, source, rows, begin, end)
    heads = [head for head, _, _ in lanes]
    for source, head in kinds:
        mine = df[df["source"] == source]
        good, bad = mine[mine["what"] == "answered"], mine[mine["what"] != "answered"]
        y = len(heads)
        axes.plot(good["time_s"], [y] * len(good), "|", color=GREEN, markersize=9)
        axes.plot(bad["time_s"], [y + 1] * len(bad), "x", color=VERMILLION, markersize=7, mew=2)
        counts = " and ".join(f"{n} {what}" for what, n in bad["what"].value_counts().items())
        axes.text(end, y + 1, f"  {counts or 'none'}", va="center", fontsize=8)
        heads += [f"{head}: answered", "no answer"]
    axes.axhline(len(lanes) - 0.5, color=GREY, linewidth=0.8)
    axes.axvline(0, color=PURPLE, linestyle="--")
    axes.text(0, -0.6, " the command", color=PURPLE_INK, fontsize=SMALL, va="bottom")
    axes.set_yticks(range(len(heads)), heads)
    axes.set_ylim(len(heads) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    axes.grid(axis="x")
    axes.set_xlabel("seconds since the command")
    return axes


def _lanes(df: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield a lane for each node that went down, and three for each task that something happened to.

    A lane is its head, the source that tells of it, and the source's rows.
    """
    states = df[df["source"] == "node"]
    for node in states[states["what"] == "down"]["node"].unique():
        yield f"{node}, as the manager says", "node", states[states["node"] == node]
    events = df[df["source"].isin(list(_HEADS))]
    events = events[~events["task"].str.startswith("virtual", na=False)]
    for task in sorted(events[events["time_s"] > 0]["task"].dropna().unique()):
        mine = events[events["task"] == task]
        node = mine["node"].dropna().iloc[0]
        for source, head in _HEADS.items():
            whose = f"{task} on {node}:  " if source == "DNS" else ""
            yield f"{whose}{head}", source, mine[mine["source"] == source]


def _draw_lane(axes: Axes, y: int, source: str, rows: pd.DataFrame, begin: float, end: float) -> None:
    """Draw from when to when each word was shown, and the marks between."""
    events = list(zip(rows["time_s"].astype(float), rows["what"].astype(str), strict=True))
    bars = [(time, what) for time, what in events if what in {*_BARS, "out", "ended"}]
    if source == "container" and (not bars or bars[0][1] != "started"):
        bars.insert(0, (begin, "started"))  # it ran before the command
    for (left, what), (right, _) in pairwise([*bars, (end, "")]):
        if what not in _BARS:
            continue
        colour, hatch = _BARS[what]
        bar = axes.barh(y, right - left, 0.66, left=left, color=colour, hatch=hatch)
        bar[0].set(edgecolor=GREY, linewidth=0.5)
        if right - left > (end - begin) * 0.1:
            word = "runs" if what == "started" else what  # at the left: marks stand near the end
            axes.annotate(word, (left, y), (5, 0), textcoords="offset points", va="center", **_WORD)
    for time, what in events:
        if what in _MARKS:
            marker, colour, align = _MARKS[what]
            beside = (-6 if align == "right" else 6, 0)
            axes.plot(time, y, marker, color=colour, markeredgecolor="white", markersize=10)
            axes.annotate(
                what, (time, y), beside, textcoords="offset points", ha=align, va="center", **_WORD
            )
