"""The panel without a browser: its controls, what the button does, and what goes wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.axes import Axes

from labkit import panel
from labkit.errors import CommandFailed, UsageError

MEASURED = pd.DataFrame({"requests": [3, 5]})


def draw(df: pd.DataFrame) -> Axes:
    figure, axes = plt.subplots()
    axes.bar(range(len(df)), df["requests"])
    figure.alternative_text = f"<{list(df['requests'])}>"  # type: ignore[attr-defined]
    return axes


def explore(asked: list[dict[str, Any]], **controls: Any) -> ipywidgets.VBox:
    def ask(**values: Any) -> pd.DataFrame:
        asked.append(values)
        return pd.DataFrame({"requests": [1, 2]})

    return panel.explore(ask, draw, MEASURED, **controls)


def test_values_become_controls_with_labels() -> None:
    asked: list[dict[str, Any]] = []
    box = explore(asked, requests=range(6, 61, 6), path=["name", "port"], keep_alive=True)
    slider, choice, tick, button, output = box.children
    assert isinstance(slider, ipywidgets.IntSlider)
    assert (slider.value, slider.min, slider.max, slider.step) == (6, 6, 60, 6)
    assert isinstance(choice, ipywidgets.Dropdown)
    assert choice.options == ("name", "port")
    assert isinstance(tick, ipywidgets.Checkbox)
    assert tick.value is True
    data, _ = DisplayFormatter().format(box)
    # What a page without a browser's help shows.
    assert data["text/plain"] == "draw(ask(requests=6, path='name', keep_alive=True))"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert '<img src="data:image/png;base64,iVBOR' in data["text/html"]
    assert 'alt="&lt;[3, 5]&gt;"' in data["text/html"]
    assert [w.description for w in box.children[:4]] == ["requests", "path", "keep alive", "Run"]
    assert all(widget.tooltip for widget in (slider, choice, tick, button))
    assert output.outputs[0]["metadata"]["image/png"]["alt"] == "<[3, 5]>"  # what was measured before
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

    box = panel.explore(fail, draw, MEASURED)
    box.children[0].click()
    assert "CommandFailed: on node1: `curl x` ended with code 7" in capsys.readouterr().out
    assert not box.children[0].disabled


@pytest.mark.parametrize("values", [range(0), range(5, 1, -1), [], "words", 7])
def test_what_cannot_be_a_control_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match="'size' cannot be a control"):
        explore([], size=values)


def test_a_long_table_is_saved_as_the_plain_one() -> None:
    df = pd.DataFrame({"task": ["hello.1", "<b>"], "bytes": pd.array([7, None], dtype="Int64")})
    saved, _ = panel.table(df)._repr_mimebundle_()
    assert saved["text/plain"] == repr(df)
    assert set(saved) == {"text/plain", "text/html"}  # a widget that is gone would hide the others
    assert df._repr_html_() in saved["text/html"]


def test_tables_do_not_take_each_others_place() -> None:
    df = pd.DataFrame({"bytes": [1]})
    first, second = panel.table(df), panel.table(df)
    for one, other in [(first, second), (second, first)]:
        html = one._repr_mimebundle_()[0]["text/html"]
        assert f'data-labkit-table="{one._place}"' in html
        assert other._place not in html


def test_the_long_script_is_sent_to_a_browser_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    table = panel.table(pd.DataFrame({"bytes": [1]}))
    # What is in the model's state is sent at once, and a headless run saves it.
    assert len(json.dumps(table.get_state(), default=str)) < 8_000
    sent: list[Any] = []
    monkeypatch.setattr(table, "send", lambda content, buffers: sent.append(buffers))
    table._handle_custom_msg({"wanted": "sorter"}, [])
    script, style = (part.decode() for part in sent[0])
    assert "render" in script[-20_000:]
    assert len(script) > 100_000
    assert ".dt-container" in style
    assert "http" not in "".join(re.findall(r"@import[^;]*|url\([^)]*\)", style))


def test_absent_numbers_and_truth_values_are_shown_as_in_pandas() -> None:
    df = pd.DataFrame(
        {
            "task": ["a", "b"],
            "bytes": pd.array([7, None], dtype="Int64"),
            "ok": [True, False],
            "seen": pd.array([True, None], dtype="boolean"),
        }
    )
    before = df.copy()
    arguments = panel.table(df)._dt_args
    shown = [one for one in arguments["columnDefs"] if "&lt;NA&gt;" in one["render"]]
    assert [one["targets"] for one in shown] == [[2, 3, 4]]  # after the index and the task
    pd.testing.assert_frame_equal(df, before)
