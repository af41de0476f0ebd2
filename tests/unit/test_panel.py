"""The panel without a browser: its controls, what the button does, and what goes wrong."""

from __future__ import annotations

from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes

from labkit import panel
from labkit.errors import CommandFailed, UsageError


def draw(df: pd.DataFrame) -> Axes:
    _, axes = plt.subplots()
    axes.bar(range(len(df)), df["requests"])
    return axes


def explore(asked: list[dict[str, Any]], **controls: Any) -> ipywidgets.VBox:
    def ask(**values: Any) -> pd.DataFrame:
        asked.append(values)
        return pd.DataFrame({"requests": [1, 2]})

    return panel.explore(ask, draw, **controls)


def test_values_become_controls_with_labels() -> None:
    asked: list[dict[str, Any]] = []
    box = explore(asked, requests=range(6, 61, 6), path=["name", "port"], keep_alive=True)
    slider, choice, tick, button, _ = box.children
    assert isinstance(slider, ipywidgets.IntSlider)
    assert (slider.value, slider.min, slider.max, slider.step) == (6, 6, 60, 6)
    assert isinstance(choice, ipywidgets.Dropdown)
    assert choice.options == ("name", "port")
    assert isinstance(tick, ipywidgets.Checkbox)
    assert tick.value is True
    data, *_ = box._repr_mimebundle_()
    # What a page without a browser's help shows.
    assert data["text/plain"] == "draw(ask(requests=6, path='name', keep_alive=True))"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert [w.description for w in box.children[:4]] == ["requests", "path", "keep alive", "Run"]
    assert all(widget.tooltip for widget in (slider, choice, tick, button))
    assert asked == []  # building it asks nothing


def test_the_button_runs_with_the_values_shown(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, Any]] = []
    open_before = plt.get_fignums()
    box = explore(asked, requests=range(1, 9), keep_alive=False)
    box.children[0].value = 5
    box.children[2].click()
    assert asked == [{"requests": 5, "keep_alive": False}]
    assert "draw(ask(requests=5, keep_alive=False))" in capsys.readouterr().out
    assert plt.get_fignums() == open_before
    assert not box.children[2].disabled


def test_a_failure_shows_its_own_message(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> pd.DataFrame:
        raise CommandFailed("node1", ["curl", "x"], 7, "refused")

    box = panel.explore(fail, draw)
    box.children[0].click()
    assert "CommandFailed: on node1: `curl x` ended with code 7" in capsys.readouterr().out
    assert not box.children[0].disabled


@pytest.mark.parametrize("values", [range(0), range(5, 1, -1), [], "words", 7])
def test_what_cannot_be_a_control_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match="'size' cannot be a control"):
        explore([], size=values)
