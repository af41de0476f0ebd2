"""The widget of `panel.swarm`; what it imports takes a while, so nothing else imports it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from labkit.swarm.watch import State, Watch


class SwarmWidget(anywidget.AnyWidget):
    """Shows the state of a lab, and each later one while it can be seen."""

    _esm = Path(__file__).parent / "widget.js"
    picture = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Bool(False).tag(sync=True)
    """Whether a browser has it on the screen; told by the browser."""

    def __init__(self, state: State) -> None:
        """Show a state; a lab that runs is looked at again as soon as a browser shows this."""
        super().__init__()
        self._watch = None if state.state == "recorded" else Watch(state.lab, self._take)
        self._take(state)

    def _take(self, state: State) -> None:
        """Show a state; the thread that watches calls this."""
        self._state = state
        words = [f"<b>{state.sign} {escape(state.title)}.</b> {escape(state.told)}"]
        if state.hint:
            words.append(escape(state.hint))
        seen = state.seen._repr_html_() if state.seen else ""
        self.picture = f"<p>{'<br>'.join(words)}</p>{seen}"

    @traitlets.observe("shown")
    def _seen_or_not(self, change: Any) -> None:
        if self._watch and change["new"]:
            self._watch.ask(float("inf"))
        elif self._watch:
            self._watch.rest()

    def close(self) -> None:
        """Look no more, and take the widget out of the page."""
        if self._watch:
            self._watch.rest()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Return the widget, and the picture of this moment for where there is no browser."""
        made = super()._repr_mimebundle_(**kwargs)
        if not made:
            return made
        data, *more = made if isinstance(made, tuple) else (made,)
        state = self._state
        words = f"{state.sign} {state.title}. {state.told}"
        data |= {"text/html": self.picture, "text/plain": f"{words}\n{state.seen or ''}".rstrip()}
        return (data, *more)
