"""Looks at every figure that a notebook draws: its alternative text, the contrast and size of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from labkit.plots import canvas, described

SCARCE = 0.1  # the part of the ground behind a word that may be a line or an edge


def look_at_all(path: str) -> None:
    """Write a line of JSON for each figure of labkit from now on: alt, title, faint words, smallest."""

    def words_of(figure: Any) -> str:
        text = described.words_of(figure)
        found = {"alt": text, "faint": faint(figure), "smallest": smallest(figure)}
        with Path(path).open("a") as file:
            file.write(json.dumps(found) + "\n")
        return text

    canvas.words_of = words_of


def _texts(figure: Any) -> list[Text]:
    found = figure.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def smallest(figure: Any) -> float:
    """The size of the smallest letters, in points."""
    return min(float(text.get_fontsize()) for text in _texts(figure))


def faint(figure: Any) -> list[tuple[str, float]]:
    """The words with a contrast below 4.5 to what is drawn behind them, and that contrast."""
    engine = figure.get_layout_engine()
    figure.canvas.draw()
    figure.set_layout_engine("none")  # without its words it would be laid out anew
    renderer = figure.canvas.get_renderer()
    texts = [(text, text.get_window_extent(renderer)) for text in _texts(figure)]
    for text, _ in texts:
        text.set_visible(False)
    figure.canvas.draw()
    ground = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    for text, _ in texts:
        text.set_visible(True)
    figure.set_layout_engine(engine)
    found = []
    for text, box in texts:
        height = ground.shape[0]
        rows = slice(max(0, int(height - box.y1)), max(0, int(height - box.y0)))
        behind = ground[rows, max(0, int(box.x0)) : max(0, int(box.x1))].reshape(-1, 3)
        patch = text.get_bbox_patch()
        if patch is not None and patch.get_facecolor()[3] > 0.9:
            behind = np.asarray([patch.get_facecolor()[:3]])
        if not len(behind):  # not drawn: the label of a tick beyond the axes
            continue
        ratio = np.quantile(contrast(to_rgb(text.get_color()), behind), SCARCE)
        if ratio < 4.5:
            found.append((text.get_text(), round(float(ratio), 2)))
    return found


def contrast(ink: tuple[float, float, float], ground: Any) -> Any:
    """The contrast of a colour to others, as WCAG 2.1 defines it: 1 to 21."""
    one, others = _luminance(np.asarray([ink])), _luminance(ground)
    return (np.maximum(one, others) + 0.05) / (np.minimum(one, others) + 0.05)


def _luminance(rgb: Any) -> Any:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
