"""What a table holds, declared once: names, types and meanings of its columns.

A parser or an experiment is decorated with its columns. The decorator builds or checks the table by
them, and writes them into the docstring, so that neither can say anything else than the other:

    @table(
        Column("node", "str", "the node that asks"),
        Column("rtt_ms", "float", "to the answer and back"),
    )
    def ping(text: str) -> Iterator[Row]:

Types: `str` (NaN when absent), `int` ("Int64", <NA> when absent), `float` ("float64", NaN when absent),
`bool` ("boolean"). Nothing is nested; lists are joined with a comma. A column's unit is in its name
(`rtt_ms`), unless it is a count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, get_args

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
Row = dict[str, Any]
Kind = Literal["str", "int", "float", "bool"]

_DTYPES: Mapping[str, str] = {"str": "str", "int": "Int64", "float": "float64", "bool": "boolean"}


class SchemaError(TypeError):
    """A table is not what its columns say. That is a fault of labkit, never of what was measured."""


@dataclass(frozen=True)
class Column:
    """One column: its name in flat lower snake case, the type of its values, what they mean."""

    name: str
    kind: Kind
    meaning: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise SchemaError(f"column {self.name!r} has the type {self.kind!r}; there are: {known}")
        if not (self.name.isidentifier() and self.name == self.name.lower()):
            raise SchemaError(f"{self.name!r} cannot be a column's name: lower snake case is expected")

    @property
    def dtype(self) -> str:
        """The pandas dtype of the column."""
        return _DTYPES[self.kind]


@dataclass(frozen=True)
class Schema:
    """The columns of one table, in order."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SchemaError(f"declared twice: {', '.join(sorted(twice))}")

    @property
    def dtypes(self) -> dict[str, str]:
        """Column name -> pandas dtype."""
        return {column.name: column.dtype for column in self.columns}

    def text(self) -> str:
        """The columns as the docstring shows them: name, type, meaning."""
        wide = max((len(column.name) for column in self.columns), default=0)
        rows = (f"{c.name:<{wide}}  {c.kind:<5}  {c.meaning}".rstrip() for c in self.columns)
        return "\n".join(rows)

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """Make a table of rows; a key that a row lacks is absent there, no rows give all the columns.

        Raises SchemaError for a key that is no column, and for a value that is not of its type. What a
        tool prints may be a text of digits: those are read as the numbers that they are.
        """
        import pandas as pd  # here, since it costs more than all the rest of labkit together

        kept = list(rows)
        for row in kept:
            if strange := row.keys() - self.dtypes.keys():
                raise SchemaError(f"not declared: {', '.join(sorted(strange))}")
        return pd.DataFrame(
            {
                column.name: pd.Series(
                    [_cast(row.get(column.name), column) for row in kept], dtype=column.dtype
                )
                for column in self.columns
            }
        )

    def check(self, found: pd.DataFrame) -> pd.DataFrame:
        """Return a table in the declared order and dtypes; raises SchemaError where it is another."""
        if strange := set(map(str, found.columns)) ^ self.dtypes.keys():
            raise SchemaError(f"declared or there, but not both: {', '.join(sorted(strange))}")
        try:
            return found[list(self.dtypes)].astype(self.dtypes)
        except (TypeError, ValueError) as problem:
            raise SchemaError(f"a value is not of its column's type: {problem}") from problem


def _cast(value: Any, column: Column) -> Any:
    """Return a value as its column has it; raises SchemaError for one that is of another type."""
    if value is None:
        return None
    fits: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int, str),
        "float": (int, float, str),
        "bool": (bool,),
    }
    wanted = fits[column.kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and column.kind != "bool"):
        raise SchemaError(f"column {column.name!r} is {column.kind}, and a row has {value!r}")
    casts: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
    return casts[column.kind](value)


def table(
    *columns: Column,
) -> Callable[[Callable[P, Iterable[Row] | pd.DataFrame]], Callable[P, pd.DataFrame]]:
    """Declare what a function's table holds: it yields rows, or returns the whole table."""
    schema = Schema(columns)

    def decorate(read: Callable[P, Iterable[Row] | pd.DataFrame]) -> Callable[P, pd.DataFrame]:
        @wraps(read)
        def made(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
            import pandas as pd

            found = read(*args, **kwargs)
            return schema.check(found) if isinstance(found, pd.DataFrame) else schema.frame(found)

        head = inspect.cleandoc(read.__doc__ or "")
        made.__doc__ = f"{head}\n\n{schema.text()}\n"
        made.schema = schema  # type: ignore[attr-defined]
        return made

    return decorate


def schema_of(function: Callable[..., Any]) -> Schema:
    """Return what a function's table was declared to hold; raises SchemaError where nothing was."""
    found = getattr(function, "schema", None)
    if not isinstance(found, Schema):
        raise SchemaError(f"{function.__qualname__} declares no columns")
    return found
