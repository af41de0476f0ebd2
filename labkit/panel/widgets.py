"""The widgets of this package; what they import takes a while, so it is imported when one is made."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython.display import Image

from labkit.swarm.watch import State, Watch


class _WithPicture:
    """Shows, where there is no browser, a picture that does not move: a report, a saved notebook."""

    def still(self) -> tuple[str, str]:
        """Return what is shown there, as HTML and as text."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        data, about = made if isinstance(made, tuple) else (made, {})
        html, text = self.still()
        return {**data, "text/html": html, "text/plain": text}, about


class Panel(_WithPicture, ipywidgets.VBox):  # type: ignore[misc]
    """Controls; without a browser, the plain call that does what their button does, and a picture."""

    def __init__(self, children: list[ipywidgets.Widget], plain: str, picture: Image) -> None:
        super().__init__(children)
        self._plain = plain
        self._picture = picture

    def still(self) -> tuple[str, str]:
        """Return the plain call and the picture; as text, the call alone."""
        png = b64encode(self._picture.data).decode("ascii")
        picture = f'<img src="data:image/png;base64,{png}" alt="{escape(self._picture.alt or "")}">'
        return f"<pre>{escape(self._plain)}</pre>{picture}", self._plain


class SwarmWidget(_WithPicture, anywidget.AnyWidget):
    """Shows the state of a lab, and each later one while it can be seen."""

    _esm = Path(__file__).parent / "swarm.js"
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

    def still(self) -> tuple[str, str]:
        """Return the picture of this moment."""
        state = self._state
        words = f"{state.sign} {state.title}. {state.told}"
        return self.picture, f"{words}\n{state.seen or ''}".rstrip()
