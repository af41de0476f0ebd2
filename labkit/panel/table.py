"""A long table that a browser sorts and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from labkit.panel.sorting import SortingTable

# Shows these values as pandas does; what is absent is no text when numbers are sorted.
_AS_IN_PANDAS = """function (data, type) {
  if (data === "<NA>") return type === "sort" || type === "type" ? null : "&lt;NA&gt;";
  if (typeof data !== "boolean") return data;
  return data ? "True" : "False";
}"""


def table(df: pd.DataFrame) -> SortingTable:
    """Return a long table that the browser sorts by any column and filters by any words.

    A cell whose last value it is saves the plain table, as `df` alone would: that is what a report, an
    exported page, a marked notebook and a notebook opened again without its kernel show. Where a
    browser and the kernel are there, the sorting table takes its place, as soon as the kernel has
    nothing else to do. Nothing is asked of another host, and `df` stays as it is.
    """
    from itables import JavascriptFunction

    from labkit.panel.sorting import SortingTable

    kinds = ("Int64", "boolean", "bool")
    like_pandas = [at for at, kind in enumerate(df.dtypes, df.index.nlevels) if str(kind) in kinds]
    return SortingTable(
        df,
        showIndex=True,
        layout={"topStart": "search", "topEnd": "info", "bottomStart": None},
        pageLength=25,
        style="table-layout: auto; width: auto; margin: 0",
        columnDefs=[{"targets": like_pandas, "render": JavascriptFunction(_AS_IN_PANDAS)}],
    )
