"""A control per value of an experiment, a button, and the plot of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError, UsageError

if TYPE_CHECKING:
    import ipywidgets
    import pandas as pd
    from IPython.display import Image
    from matplotlib.axes import Axes


def explore(
    run: Callable[..., pd.DataFrame],
    draw: Callable[[pd.DataFrame], Axes],
    measured: pd.DataFrame,
    /,
    **controls: range | Sequence[Any] | bool,
) -> ipywidgets.VBox:
    """Return a panel with one control per keyword of `run`, and a button that runs and draws it.

    `run` takes the values by keyword, in the units of its own parameters, and returns the table that
    `draw` draws: an experiment and its plot, say. `measured` is such a table that is there already: its
    plot stands in the panel until the button is pressed, so that the new one has something to differ
    from. A range becomes a slider from its first to its last number, another sequence a list to choose
    from, a bool a box to tick; each begins with its first value. The plain call that does the same as
    the button is shown above the plot; where it raises a LabkitError, the message is shown in place of
    the plot. Where there is no browser, what stands there is the plain call and the plot of `measured`.
    Raises UsageError for a value that cannot be a control.
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
    before = _picture(draw(measured))
    data, about = before._repr_mimebundle_()  # type: ignore[no-untyped-call]
    output = ipywidgets.Output(
        outputs=({"output_type": "display_data", "data": data, "metadata": about},)
    )

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
    return Panel([*boxes.values(), button, output], plain, before)


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
    from IPython.display import display

    print(_call(run, draw, values))
    try:
        picture = _picture(draw(run(**values)))
    except LabkitError as problem:
        print(f"{type(problem).__name__}: {problem}")
        return
    display(picture)  # type: ignore[no-untyped-call]


def _picture(axes: Axes) -> Image:
    """Return a plot as a picture with its words, and close its figure: a notebook would show it too."""
    import matplotlib.pyplot as plt
    from IPython.core.pylabtools import print_figure
    from IPython.display import Image

    figure: Any = axes.get_figure(root=True)
    png = print_figure(figure)  # type: ignore[no-untyped-call]
    plt.close(figure)
    words = getattr(figure, "alternative_text", None)
    return Image(png, format="png", alt=words)  # type: ignore[no-untyped-call]
