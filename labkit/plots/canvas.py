"""What plots are drawn on: figures in the style of labkit.mplstyle, cells, and the colours.

Colours are those of Okabe and Ito, which colour-blind people tell apart, and never stand alone: a word,
a shape or a line style says the same.
"""

from __future__ import annotations

import functools
import inspect
import ipaddress
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from labkit.plots.described import words_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")

GREEN, VERMILLION, BLUE, ORANGE = "#009E73", "#D55E00", "#0072B2", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#6E6E6E"
MINT, PEACH = "#D9F0E8", "#FBE3D3"  # pale green and vermillion, behind black words
# Of words on white: the same hues, dark enough for a contrast of 4.5 to 1 (WCAG 2.1, 1.4.3).
GREEN_INK, VERMILLION_INK, PURPLE_INK = "#00694C", "#A63F00", "#8A3D68"

STYLE = "labkit.plots.labkit"  # labkit.mplstyle, as matplotlib names a file in a package
_TITLE_WIDTH, _TITLE_LINES = 100, 4  # characters, as many as the figure is wide; lines
SMALL, MIDDLE = 9, 11  # points: words beside marks, heads of panels
_PROJECTED = 14 / 8  # how much larger a figure is on a projector: 8 points are the smallest letters
GOOD_BOX: dict[str, Any] = {"facecolor": MINT, "edgecolor": GREEN, "linewidth": 1}
BAD_BOX: dict[str, Any] = {"facecolor": PEACH, "edgecolor": VERMILLION, "linewidth": 1}

_SECTIONS = """

Returns:
    The axes; of a figure with several panels, those of the first.

Raises:
    KeyError: the table lacks a column of `{table}`.
"""


def draws(table: str) -> Callable[[Callable[P, Axes]], Callable[P, Axes]]:
    """Declare the experiment whose table a function draws, and let it draw in the style of labkit."""

    def decorate(draw: Callable[P, Axes]) -> Callable[P, Axes]:
        @wraps(draw)
        def styled(*args: P.args, **kwargs: P.kwargs) -> Axes:
            import matplotlib  # here: loading it takes longer than most of labkit
            import matplotlib.pyplot as plt

            with plt.style.context([STYLE, {"figure.dpi": _dpi()}]):
                df: Any = args[0] if args else kwargs["df"]
                axes = draw(*args, **kwargs) if len(df) else _nothing(table, kwargs.get("title"))
                interactive = plt.isinteractive()
            # A notebook's backend is loaded with the first figure and turns this on; leaving the style
            # would turn it off again, and no later figure would be shown.
            matplotlib.interactive(interactive)
            figure: Any = axes.get_figure(root=True)
            figure.alternative_text = words_of(figure)
            _show_with_text()
            return axes

        styled.__doc__ = inspect.cleandoc(draw.__doc__ or "") + _SECTIONS.format(table=table)
        styled.draws = table  # type: ignore[attr-defined]
        return styled

    return decorate


def projector(on: bool = True) -> None:
    """Draw every later figure larger: its smallest letters have 14 points, for a class to read.

    LABKIT_PROJECTOR=1 does so from the start.
    """
    os.environ["LABKIT_PROJECTOR"] = "1" if on else ""


def _dpi() -> float:
    """Return the dots per inch of a new figure."""
    import matplotlib as mpl

    scale = _PROJECTED if os.environ.get("LABKIT_PROJECTOR", "") not in ("", "0") else 1.0
    return float(mpl.rcParams["figure.dpi"]) * scale


@functools.cache
def _show_with_text() -> None:
    """Have a notebook show figures with their alternative text beside the picture."""
    from matplotlib.figure import Figure

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return
    formatter = shell.display_formatter.formatters["image/png"]
    try:
        plain = formatter.lookup_by_type(Figure)
    except KeyError:  # the notebook shows figures in another form
        return

    def with_text(figure: Any) -> Any:
        picture = plain(figure)
        data, about = picture if isinstance(picture, tuple) else (picture, {})
        text = getattr(figure, "alternative_text", "")
        return (data, {**about, "alt": text}) if data and text else picture

    formatter.for_type(Figure, with_text)


def _nothing(table: str, title: object) -> Axes:
    """Return axes that say that the table has no rows, in place of a plot of nothing."""
    axes = new_axes(1.6, str(title or ""))
    note(axes, f"nothing to draw: the table of {table} has no rows")
    axes.set_axis_off()
    return axes


def note(axes: Axes, text: str) -> None:
    """Write a remark in the middle of axes, where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


def new_axes(height: float, title: str, *, pad: float = 12) -> Axes:
    """Return new axes, so many inches high, with a title above by so many points."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(_width(), height))
    axes.set_title(_fitted(title), pad=pad)
    return axes


def _fitted(title: str) -> str:
    """Break a title that is wider than the figure, which leaves its axes no room; cut a long one."""
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, _TITLE_WIDTH) or [""]]
    more = len(lines) - _TITLE_LINES
    return "\n".join(lines if more <= 0 else [*lines[:_TITLE_LINES], f"… and {more} lines more"])


def new_panels(
    rows: int, columns: int, height: float, **options: Any
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """Return a new figure, so many inches high, and its axes as a table of rows and columns."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(_width(), height), squeeze=False, **options)


def new_figure(height: float) -> Figure:
    """Return a new figure without axes, so many inches high."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(_width(), height))


def _width() -> float:
    """Return the width of every figure in inches, as the style has it."""
    import matplotlib as mpl

    return float(mpl.rcParams["figure.figsize"][0])


def figure_title(figure: Any, title: str, **options: Any) -> None:
    """Put a title above all panels of a figure or of a part of it, at the left."""
    figure.suptitle(_fitted(title), x=0.01, ha="left", **options)


def mark(good: bool) -> str:
    """Return the sign in front of a word: it says the same as the colour."""
    return "✓" if good else "✗"


def whole_numbers(axis: Axis, most: int = 10) -> None:
    """Let an axis have ticks at whole numbers only, at most so many steps of them."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def hide_spines(axes: Axes, *sides: str) -> None:
    """Take away the lines at some sides of the axes; at all sides where none is named."""
    for side in sides or ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)


def as_sheet(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Make a sheet of the axes: cells one unit wide and high, heads on top and at the left."""
    axes.set_xlim(0, max(len(columns), 1))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    heads_on_top(axes)


def heads_on_top(axes: Axes) -> None:
    """Put the labels of the columns on top, and take away ticks and lines."""
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    hide_spines(axes)


def add_cell(axes: Axes, x: float, y: float, *, gap: tuple[float, float], **box: Any) -> Any:
    """Draw a cell of a sheet, less a gap to its neighbours on each side; returns its rectangle."""
    from matplotlib.patches import Rectangle

    across, down = gap
    cell = Rectangle((x + across, y + down), 1 - 2 * across, 1 - 2 * down, **box)
    return axes.add_patch(cell)


def tint(cell: Any, colour: str) -> None:
    """Give a rectangle a frame of a colour, and fill it with a pale tone of it."""
    cell.set_edgecolor(colour)
    cell.set_facecolor((*cell.get_edgecolor()[:3], 0.14))


def _outcome(probes: pd.DataFrame) -> tuple[str, bool]:
    """Return a cell's word, and whether every probe in it was answered."""
    total, reached = len(probes), int(probes["reached"].sum())
    if 0 < reached < total:
        return f"{reached} of {total}", False
    first = probes.iloc[0]
    if reached:
        said = first.get("answer")
        short = first["protocol"] == "TCP" and isinstance(said, str) and 0 < len(said) <= 6
        return (str(said) if short else "answers"), True
    codes = set(probes["code"])
    return {(28,): "time-out", (7,): "refused"}.get(tuple(codes), "silent"), False


def matrix(
    df: pd.DataFrame,
    axes: Axes,
    *,
    row: str,
    columns: Sequence[str],
    heads: Sequence[str],
    gap_after: Iterable[int] = (),
) -> None:
    """Draw one cell for each row label and each combination of the columns: mark, word and colour."""
    rows = list(dict.fromkeys(df[row]))
    combos = list(dict.fromkeys(df[list(columns)].itertuples(index=False, name=None)))
    gaps = set(gap_after)
    lefts, x = [], 0.0
    for number in range(len(combos)):
        lefts.append(x)
        x += 1.35 if number in gaps else 1.0
    for y, name in enumerate(rows):
        for left, combo in zip(lefts, combos, strict=True):
            chosen = df[df[row] == name]
            for column, value in zip(columns, combo, strict=True):
                chosen = chosen[chosen[column] == value]
            if len(chosen):
                _draw_outcome(axes, left, y, chosen, " " if len(combos) < 6 else "\n")
    as_sheet(axes, heads, [str(name) for name in rows])
    axes.set_xlim(-0.05, lefts[-1] + 1.05)
    axes.set_xticks([left + 0.5 for left in lefts], heads)


def over_columns(axes: Axes, texts: Sequence[str]) -> None:
    """Write what groups of a sheet's columns have in common above their heads; all are as wide."""
    ticks = axes.get_xticks()
    width = len(ticks) // len(texts)
    for number, text in enumerate(texts):
        mine = ticks[number * width : (number + 1) * width]
        axes.annotate(
            text,
            (float(sum(mine)) / len(mine), 0),
            xytext=(0, 24),
            textcoords="offset points",
            ha="center",
            fontsize=MIDDLE,
            fontweight="bold",
            annotation_clip=False,
        )


def _draw_outcome(axes: Axes, x: float, y: float, probes: pd.DataFrame, between: str) -> None:
    """Draw the cell of some probes, with the mark, what is between, and the word."""
    word, good = _outcome(probes)
    box = {**GOOD_BOX, "linewidth": 2} if good else {**BAD_BOX, "hatch": "///"}
    add_cell(axes, x, y, gap=(0.03, 0.06), **box)
    axes.text(
        x + 0.5,
        y + 0.5,
        f"{mark(good)}{between}{word}",
        ha="center",
        va="center",
        fontweight="bold",
        bbox=None if good else {"facecolor": PEACH, "edgecolor": "none", "pad": 1.5},
    )


def address_order(address: object) -> tuple[int, int]:
    """Return the version and the number of an IP address, to sort by."""
    found = ipaddress.ip_address(str(address))
    return found.version, int(found)
