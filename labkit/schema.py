"""The columns of a table, declared once: their names, their types, what they mean.

A parser or an experiment is decorated with its columns. The decorator builds the table by them, or
checks it, and writes them into the docstring, so that code, table and documentation cannot differ:

    @table(
        Column("target", "str", "the address that was asked"),
        Column("rtt_ms", "float", "from the request to its reply; absent: no reply"),
    )
    def round_trips(text: str) -> Iterator[Row]:

Types: `str` (NaN when absent), `int` ("Int64", <NA> when absent), `float` ("float64", NaN when absent),
`bool` ("boolean"), and in a whole table `category`: words in an order that the table has. Nothing is
nested; lists are joined with a comma. A column's unit is in its name (`rtt_ms`), unless it is a count.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, get_args

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
Row = dict[str, Any]
Kind = Literal["str", "int", "float", "bool", "category"]

_DTYPES: Mapping[Kind, str] = {
    "str": "str",
    "int": "Int64",
    "float": "float64",
    "bool": "boolean",
    "category": "category",
}
# What needs no second look. Text may be a number: that is how tools print one.
_PLAIN: Mapping[Kind, frozenset[type]] = {
    "str": frozenset({str, type(None)}),
    "int": frozenset({int, str, type(None)}),
    "float": frozenset({float, int, str, type(None)}),
    "bool": frozenset({bool, type(None)}),
    "category": frozenset(),
}


class SchemaError(TypeError):
    """A table is not what its columns declare: a mistake in labkit, not in what was measured."""


@dataclass(frozen=True)
class Column:
    """One column: its name in flat lower snake case, the type of its values, what they mean.

    Raises SchemaError for a type that is unknown, and for a name of another form.
    """

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

    def series(self, values: Sequence[Any]) -> pd.Series[Any]:
        """Return values in the column's dtype; None, NaN and <NA> are absent.

        Text is read as a number where the column holds numbers. Raises SchemaError for a value that is
        not of the column's type.
        """
        import pandas as pd  # here, since it costs more than all the rest of labkit together

        if not _PLAIN[self.kind].issuperset(map(type, values)):
            values = [self._plain(value) for value in values]
        if self.kind in ("int", "float"):
            read = int if self.kind == "int" else float
            try:
                values = [None if value is None else read(value) for value in values]
            except ValueError as problem:
                raise SchemaError(f"column {self.name!r} is {self.kind}: {problem}") from problem
        return pd.Series(values, dtype=self.dtype)

    def _plain(self, value: Any) -> Any:
        """Return a value that may be numpy's or pandas' as Python's own."""
        import pandas as pd

        if pd.api.types.is_scalar(value) and pd.isna(value):
            return None
        whole = pd.api.types.is_integer(value) or isinstance(value, str)
        fits = {
            "str": isinstance(value, str),
            "int": whole,
            "float": whole or pd.api.types.is_float(value),
            "bool": pd.api.types.is_bool(value),
            "category": False,  # a row cannot say in which order the words are
        }
        if not fits[self.kind]:
            raise SchemaError(f"column {self.name!r} is {self.kind}, and a row has {value!r}")
        return value.item() if hasattr(value, "item") else value


@dataclass(frozen=True)
class Schema:
    """The columns of one table, in order. Raises SchemaError for a name that is declared twice."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SchemaError(f"declared twice: {', '.join(sorted(twice))}")

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Column name -> pandas dtype."""
        return {column.name: column.dtype for column in self.columns}

    def text(self) -> str:
        """One line per column, as the docstring shows it: name, type, meaning."""
        name = max((len(column.name) for column in self.columns), default=0)
        kind = max((len(column.kind) for column in self.columns), default=0)
        lines = (f"{c.name:<{name}}  {c.kind:<{kind}}  {c.meaning}".rstrip() for c in self.columns)
        return "\n".join(lines)

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """Make a table of rows. A key that a row lacks is absent there; no rows still give all columns.

        Raises SchemaError for a key that is no column, and for a value that is not of its type.
        """
        import pandas as pd

        found = list(rows)
        for row in found:
            if not row.keys() <= self.dtypes.keys():
                undeclared = ", ".join(sorted(row.keys() - self.dtypes.keys()))
                raise SchemaError(f"a row has what is not declared: {undeclared}")
        return pd.DataFrame(
            {c.name: c.series([row.get(c.name) for row in found]) for c in self.columns}
        )

    def check(self, found: pd.DataFrame) -> pd.DataFrame:
        """Return a table with its columns in the declared order and dtypes, and its index as it was.

        Raises SchemaError where a column is missing, not declared, or holds another type.
        """
        import pandas as pd

        names = [str(name) for name in found.columns]
        if undeclared := set(names) - self.dtypes.keys():
            raise SchemaError(f"the table has what is not declared: {', '.join(sorted(undeclared))}")
        if missing := self.dtypes.keys() - set(names):
            raise SchemaError(f"the table lacks: {', '.join(sorted(missing))}")
        if len(names) > len(self.dtypes):
            raise SchemaError("the table has a column twice")
        return pd.DataFrame(
            {column.name: _as_declared(found[column.name], column) for column in self.columns}
        )


def _as_declared(values: pd.Series[Any], column: Column) -> pd.Series[Any]:
    """Return a column of a table in its declared dtype."""
    if str(values.dtype) == column.dtype:
        return values
    if column.kind == "int" and str(values.dtype) == "float64":
        # What pandas makes of whole numbers with a gap; others than whole ones are refused.
        try:
            return values.astype("Int64")
        except TypeError as problem:
            raise SchemaError(f"column {column.name!r} is int: {problem}") from problem
    return column.series(values.tolist()).set_axis(values.index)


def table(
    *columns: Column,
) -> Callable[[Callable[P, Iterable[Row] | pd.DataFrame]], Callable[P, pd.DataFrame]]:
    """Declare the columns of a function's table. The function yields rows, or returns the whole table.

    What the decorated function returns is always a DataFrame that fits; `SchemaError` is raised for
    rows or a table that do not. Its docstring ends with the columns.
    """
    schema = Schema(columns)

    def decorate(read: Callable[P, Iterable[Row] | pd.DataFrame]) -> Callable[P, pd.DataFrame]:
        @wraps(read)
        def build(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
            import pandas as pd

            found = read(*args, **kwargs)
            return schema.check(found) if isinstance(found, pd.DataFrame) else schema.frame(found)

        # There is no docstring under `python -OO`; the columns are shown there all the same.
        head = inspect.cleandoc(read.__doc__ or "")
        build.__doc__ = f"{head}\n\nColumns::\n\n{textwrap.indent(schema.text(), '    ')}\n".lstrip()
        build.schema = schema  # type: ignore[attr-defined]
        # For help() and the reference: rows go in, a table comes out.
        signature = inspect.signature(read).replace(return_annotation="pd.DataFrame")
        build.__signature__ = signature  # type: ignore[attr-defined]
        return build

    return decorate


def schema_of(function: Callable[..., Any]) -> Schema:
    """Return the declared columns of a function's table; raises SchemaError where there are none."""
    found = getattr(function, "schema", None)
    if not isinstance(found, Schema):
        raise SchemaError(f"{function.__qualname__} declares no columns")
    return found
