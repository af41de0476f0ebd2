"""What plots are drawn on: axes with a title, a matrix of outcomes, and the colours.

Colours are those of Okabe and Ito, which colour-blind people tell apart, and never stand alone: a word,
a shape or a line style says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

GREEN, VERMILLION, BLUE, ORANGE = "#009E73", "#D55E00", "#0072B2", "#E69F00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#6E6E6E"
MINT, PEACH = "#D9F0E8", "#FBE3D3"  # pale green and vermillion, behind black words

WIDTH = 9.0  # inches: a notebook's cell, without scaling


def new_axes(height: float, title: str, *, width: float = WIDTH) -> Axes:
    """New axes with the title that says what is seen."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _outcome(group: pd.DataFrame) -> tuple[str, bool]:
    """A cell's word, and whether every probe in it was answered."""
    total, reached = len(group), int(group["reached"].sum())
    if 0 < reached < total:
        return f"{reached} of {total}", False
    first = group.iloc[0]
    if reached:
        said = str(first.get("answer") or "")
        return (said if first["protocol"] == "TCP" and 0 < len(said) <= 6 else "answers"), True
    codes = set(group["code"])
    return {(28,): "time-out", (7,): "refused"}.get(tuple(codes), "silent"), False


def matrix(
    df: pd.DataFrame,
    axes: Axes,
    *,
    row: str,
    columns: Sequence[str],
    heads: Sequence[str],
    gap_after: Iterable[int] = (),
) -> Axes:
    """Draw one cell for each row label and each combination of the columns: mark, word and colour."""
    from matplotlib.patches import Rectangle

    rows = list(dict.fromkeys(df[row]))
    combos = list(dict.fromkeys(df[list(columns)].itertuples(index=False, name=None)))
    gaps = set(gap_after)
    between = " " if len(combos) < 6 else "\n"  # of mark and word
    at, x = [], 0.0
    for number in range(len(combos)):
        at.append(x)
        x += 1.35 if number in gaps else 1.0
    for y, name in enumerate(rows):
        for left, combo in zip(at, combos, strict=True):
            chosen = df[df[row] == name]
            for column, value in zip(columns, combo, strict=True):
                chosen = chosen[chosen[column] == value]
            if chosen.empty:
                continue
            word, good = _outcome(chosen)
            box: dict[str, Any] = {"edgecolor": "white", "linewidth": 2}
            if good:
                box["facecolor"] = GREEN
            else:
                box |= {"facecolor": PEACH, "edgecolor": VERMILLION, "hatch": "///", "linewidth": 1}
            axes.add_patch(Rectangle((left + 0.03, y + 0.06), 0.94, 0.88, **box))
            axes.text(
                left + 0.5,
                y + 0.5,
                f"{'✓' if good else '✗'}{between}{word}",
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold",
                color="white" if good else "black",
                bbox=None if good else {"facecolor": PEACH, "edgecolor": "none", "pad": 1.5},
            )
    axes.set_xlim(-0.05, at[-1] + 1.05)
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([left + 0.5 for left in at], heads)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], [str(name) for name in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def last_number(address: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(address).split("."))
