"""The widget of `panel.table`; itables takes a while to import, so nothing else imports it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import traitlets
from itables.widget import ITable

if TYPE_CHECKING:
    import pandas as pd


class SortingTable(ITable):
    """Draws in the place of the plain table, which is all that its output has."""

    _esm = Path(__file__).parent / "table.js"
    _css = ""  # type: ignore[assignment]
    _place = traitlets.Unicode().tag(sync=True)

    def __init__(self, df: pd.DataFrame, **options: Any) -> None:
        """Show a frame, with options of itables."""
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
