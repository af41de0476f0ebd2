"""The words that stand for a figure where it cannot be seen: its alternative text.

They are read off the figure itself, so they cannot differ from it: titles, axes, legends, and every
word and number that stands in it. No plot of the kit tells anything by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 1200  # characters; a screen reader reads all of it


def words_of(figure: Figure) -> str:
    """Return a figure's alternative text, one sentence for each of its parts."""
    figures = [figure, *_parts(figure)]
    sentences = [text for one in figures for text in [_suptitle(one)] if text]
    for axes in figure.axes:
        if axes.get_visible():
            sentences += _axes(axes)
    sentences += [_legend(legend) for one in figures for legend in one.legends]
    text = " ".join(f"{' '.join(s.split()).rstrip('.')}." for s in sentences if s.strip())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rsplit(' ', 1)[0]} …"


def _parts(figure: Any) -> Iterator[Any]:
    for part in figure.subfigs:
        yield part
        yield from _parts(part)


def _suptitle(figure: Any) -> str:
    return str(figure.get_suptitle())


def _axes(axes: Axes) -> Iterator[str]:
    yield next(filter(None, (axes.get_title(loc=where) for where in ("left", "center", "right"))), "")
    for axis, name in ((axes.xaxis, "across"), (axes.yaxis, "down")):
        label = axis.get_label_text()
        ticks = _list(_own_words(axis)) if axes.axison else ""
        if label or ticks:
            yield f"{label or name}{': ' + ticks if ticks else ''}"
    shown = [text.get_text() for text in axes.texts if text.get_visible()]
    if shown:
        yield f"In it: {_list(shown)}"
    if (legend := axes.get_legend()) is not None:
        yield _legend(legend)


def _own_words(axis: Any) -> list[str]:
    """Return the labels of an axis that the plot has set; numbers at ticks that follow are no news."""
    from matplotlib.ticker import FixedLocator

    fixed = isinstance(axis.get_major_locator(), FixedLocator)
    return [label.get_text() for label in axis.get_ticklabels()] if fixed else []


def _legend(legend: Any) -> str:
    return f"Legend: {_list(text.get_text() for text in legend.get_texts())}"


def _list(words: Iterable[str]) -> str:
    return ", ".join(" ".join(word.split()) for word in words if word.strip())
