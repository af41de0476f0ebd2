"""A panel of widgets for an experiment: a control per value, a button, and the plot of the result.

A panel does nothing that a plain call does not: it calls the function it was given, with the values it
shows, and draws the table that comes back. Nothing is asked of the swarm before the button is pressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from labkit.errors import LabkitError, UsageError

if TYPE_CHECKING:
    import ipywidgets
    import pandas as pd
    from itables.widget import ITable
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
    LabkitError, the message is shown in place of the plot. Raises UsageError for a value that cannot
    be a control.
    """
    import ipywidgets

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
    return ipywidgets.VBox([*boxes.values(), button, output])


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

    arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
    print(f"{getattr(draw, '__name__', 'draw')}({getattr(run, '__name__', 'run')}({arguments}))")
    try:
        figure = draw(run(**values)).figure
    except LabkitError as problem:
        print(f"{type(problem).__name__}: {problem}")
        return
    display(figure)  # type: ignore[no-untyped-call]
    plt.close(figure.get_figure(root=True))  # otherwise the notebook shows it a second time


# Runs in the browser: it waits for the plain table to be on the page, asks the kernel once for itables'
# script and style, which are too long to be sent where nobody looks, and draws in that table's place.
_SORTER = """
async function fetched(model) {
  const texts = (buffers) => buffers.map((part) => new TextDecoder().decode(part));
  const answer = new Promise((resolve) => {
    model.on("msg:custom", (_, buffers) => resolve(texts(buffers)));
  });
  model.send({ wanted: "sorter" });
  const [script, style] = await answer;
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(address)).default;
  } finally {
    URL.revokeObjectURL(address);
  }
}

function initialize({ model }) {
  const places = () => document.querySelectorAll(`[data-labkit-table="${model.get("_place")}"]`);
  const draw = async () => {
    const sorter = (window.labkitSorter ??= await fetched(model));
    for (const place of places()) {
      const el = document.createElement("div");
      el.style.setProperty("--dt-html-background", "transparent");
      sorter.render({ model, el });
      place.replaceChildren(el);
    }
  };
  const look = () => {
    if (places().length) {
      seen.disconnect();
      draw();
    }
  };
  const seen = new MutationObserver(look);
  seen.observe(document.body, { childList: true, subtree: true });
  look();
  return () => seen.disconnect();
}

export default { initialize };
"""
# Shows these values as pandas does; what is absent is no text when numbers are sorted.
_AS_IN_PANDAS = """function (data, type) {
  if (data === "<NA>") return type === "sort" || type === "type" ? null : "&lt;NA&gt;";
  if (typeof data !== "boolean") return data;
  return data ? "True" : "False";
}"""


def table(df: pd.DataFrame) -> ITable:
    """Return a long table that the browser sorts by any column and filters by any words.

    A cell whose last value it is saves the plain table, as `df` alone would: that is what a report, an
    exported page, a marked notebook and a notebook opened again without its kernel show. Where a
    browser and the kernel are there, the sorting table takes its place, as soon as the kernel has
    nothing else to do. Nothing is asked of another host, and `df` stays as it is.
    """
    from itables import JavascriptFunction

    kinds = ("Int64", "boolean", "bool")
    like_pandas = [at for at, kind in enumerate(df.dtypes, df.index.nlevels) if str(kind) in kinds]
    return _sorting_table()(
        df,
        showIndex=True,
        layout={"topStart": "search", "topEnd": "info", "bottomStart": None},
        pageLength=25,
        style="table-layout: auto; width: auto; margin: 0",
        columnDefs=[{"targets": like_pandas, "render": JavascriptFunction(_AS_IN_PANDAS)}],
    )


@cache
def _sorting_table() -> type[ITable]:
    """Return the widget, which itself is in no output: itables is loaded by who needs it only."""
    import traitlets
    from itables.widget import ITable

    class SortingTable(ITable):
        _esm, _css = _SORTER, ""  # type: ignore[assignment]
        _place = traitlets.Unicode().tag(sync=True)

        def __init__(self, df: pd.DataFrame, **options: Any) -> None:
            super().__init__(df, **options)
            self._plain = df
            self._place = uuid4().hex  # another in each kernel, for an old output to stay as it was
            self.on_msg(self._answer)

        def _answer(self, *_: object) -> None:
            # anywidget has made of the two paths what has their text.
            self.send({}, buffers=[str(part).encode() for part in (ITable._esm, ITable._css)])

        def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
            plain: str = self._plain._repr_html_()  # type: ignore[operator]
            html = f'<div data-labkit-table="{self._place}">{plain}</div>'
            return {"text/plain": repr(self._plain), "text/html": html}, {}

    return SortingTable
