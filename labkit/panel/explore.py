"""A control per value of an experiment, a button, and the plot of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError, UsageError

if TYPE_CHECKING:
    import ipywidgets
    import pandas as pd
    from matplotlib.axes import Axes


def explore(
    run: Callable[..., pd.DataFrame],
    draw: Callable[[pd.DataFrame], Axes],
    **controls: range | Sequence[Any] | bool,
) -> ipywidgets.VBox:
    """Return a panel with one control per keyword of `run`, and a button that runs and draws it.

    `run` takes the values by keyword, in the units of its own parameters, and returns the table that
    `draw` draws: an experiment and its plot, say. A range becomes a slider from its first to its last
    number, another sequence a list to choose from, a bool a box to tick; each begins with its first
    value. The plain call that does the same as the button is shown above the plot; where it raises a
    LabkitError, the message is shown in place of the plot. Where there is no browser, what stands there
    is the plain call. Raises UsageError for a value that cannot be a control.
    """
    import ipywidgets

    from labkit.panel.widgets import Panel

    boxes = {name: _control(name, values) for name, values in controls.items()}
    button = ipywidgets.Button(
        description="Run",
        icon="play",
        button_style="primary",
        tooltip="Ask the swarm with these values",
    )
    output = ipywidgets.Output()

    def pressed(_: object) -> None:
        button.disabled, button.description = True, "Running …"
        try:
            output.clear_output(wait=True)
            with output:
                _show(run, draw, {name: box.value for name, box in boxes.items()})
        finally:
            button.disabled, button.description = False, "Run"

    button.on_click(pressed)
    plain = _call(run, draw, {name: box.value for name, box in boxes.items()})
    return Panel([*boxes.values(), button, output], plain)


def _call(
    run: Callable[..., pd.DataFrame],
    draw: Callable[[pd.DataFrame], Axes],
    values: dict[str, Any],
) -> str:
    """Return the plain call that does the same as the button."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"{getattr(draw, '__name__', 'draw')}({getattr(run, '__name__', 'run')}({arguments}))"


def _control(name: str, values: range | Sequence[Any] | bool) -> Any:
    """Return the widget for one control's values, with a label that a screen reader reads."""
    import ipywidgets

    label = name.replace("_", " ")
    options: dict[str, Any] = {
        "description": label,
        "tooltip": label,
        "style": {"description_width": "10em"},
        "layout": {"width": "32em"},
    }
    if isinstance(values, bool):
        return ipywidgets.Checkbox(value=values, indent=True, **options)
    if isinstance(values, range) and values and values.step > 0:
        return ipywidgets.IntSlider(
            value=values[0], min=values[0], max=values[-1], step=values.step, **options
        )
    if isinstance(values, Sequence) and not isinstance(values, str | range) and values:
        return ipywidgets.Dropdown(options=list(values), value=values[0], **options)
    raise UsageError(
        f"{name!r} cannot be a control: found {values!r}",
        hint="give a range that rises, a list of values, or True or False",
    )


def _show(
    run: Callable[..., pd.DataFrame],
    draw: Callable[[pd.DataFrame], Axes],
    values: dict[str, Any],
) -> None:
    """Run with these values and show the plain call and the plot, or what went wrong."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    print(_call(run, draw, values))
    try:
        figure = draw(run(**values)).figure
    except LabkitError as problem:
        print(f"{type(problem).__name__}: {problem}")
        return
    display(figure)  # type: ignore[no-untyped-call]
    plt.close(figure.get_figure(root=True))  # otherwise the notebook shows it a second time
