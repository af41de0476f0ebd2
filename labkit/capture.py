"""The `Capture`: a command that ran somewhere in the lab, and everything that came back.

The swarm runs commands; this module says what a finished one looks like: to a person (like a
terminal), to a program (a table), and on disk (JSON).
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from labkit import parsers
from labkit.errors import CommandFailed, UsageError, redact

if TYPE_CHECKING:
    import pandas as pd

    from labkit.transport.base import CommandResult

RECORDED = "[recorded "
"""The first characters of whatever is shown of a recorded capture."""

# Of an output with more lines than the first number, a notebook shows so many, and the others unfolded.
_LONG, _FIRST = 40, 24
# Inherited colours and no background of its own, to suit light and dark themes alike.
_BOX = (
    "border: 1px solid; border-radius: 4px; padding: 0.5em 0.8em; color: inherit;"
    " background: transparent; overflow-x: auto; white-space: pre"
)
_MARKED = "color: inherit; background: transparent; font-weight: bold; outline: 2px solid"

_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""")
_SHELL_WORD = re.compile(r"[|&;]+|\d?[<>].*|&>.*|.*;")
_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "argv": list,
    "place": str,
    "node": str,
    "code": int,
    "stdout": str,
    "stderr": str,
    "started": str,
    "seconds": (int, float),
    "docker": str,
    "timed_out": bool,
    "recorded": bool,
}


@dataclass(frozen=True)
class Capture:
    """One command with its result.

        argv        the command as words; `command` is the same as one would type it
        place       where it ran, as a person calls it: `hello-a.1`, `node2/ingress_sbox`
        node        the node that the place is on
        code        the exit code
        stdout      all that it printed; `text` and `lines` are the same, `table` is it as a table
        stderr      all that it printed to standard error
        started     when it began, with a time zone, by the node's clock
        seconds     how long it ran
        docker      the Docker version of the node
        timed_out   it was stopped when its time was up
        recorded    it comes from evidence and not from a swarm, and says so wherever it is shown
        marked      parts of the output that a notebook marks, as `mark` was given them

    Raises ValueError for a ``started`` without a time zone.
    """

    argv: tuple[str, ...]
    place: str
    node: str
    code: int
    stdout: str
    stderr: str
    started: datetime
    seconds: float
    docker: str
    timed_out: bool = False
    recorded: bool = field(default=False, compare=False)
    marked: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.started.tzinfo is None:
            raise ValueError("started needs a time zone: nodes and notebooks may differ in theirs")

    @classmethod
    def of(
        cls, argv: Sequence[str], result: CommandResult, *, place: str, node: str, docker: str
    ) -> Self:
        """Return the capture of a command's result: the one way from transport to a notebook."""
        return cls(
            argv=tuple(argv),
            place=place,
            node=node,
            code=result.code,
            stdout=result.stdout,
            stderr=result.stderr,
            started=datetime.fromtimestamp(result.started, UTC),
            seconds=result.seconds,
            docker=docker,
            timed_out=result.timed_out,
            recorded=result.recorded,
        )

    @property
    def command(self) -> str:
        """The command as one would type it in a shell."""
        return shlex.join(self.argv)

    @property
    def text(self) -> str:
        """The command's standard output."""
        return self.stdout

    @property
    def lines(self) -> list[str]:
        """The command's standard output, line by line, without line ends."""
        return self.stdout.splitlines()

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself, with exit code 0."""
        return self.code == 0 and not self.timed_out

    def check(self) -> Self:
        """Return this capture; raises CommandFailed where the command failed or was stopped."""
        if self.ok:
            return self
        stderr = self.stderr
        if self.timed_out:
            stderr += f"\nit was stopped after {self.seconds:.1f} s"
        raise CommandFailed(self.place, self.argv, self.code, stderr)

    @property
    def table(self) -> pd.DataFrame:
        """The output as a table: `node` (str), `place` (str), and the columns of the command's parser.

        `labkit.parsers` documents the columns of each parser. Raises UsageError where no parser fits
        the command, ParseError where its output is not what the parser expects, CommandFailed where it
        printed nothing but a complaint.
        """
        found = parsers.parse(self.argv, self.stdout, self.stderr, code=self.code, place=self.place)
        for at, (name, value) in enumerate((("node", self.node), ("place", self.place))):
            # A list, since a plain value would make a column of another type in an empty table.
            found.insert(at, name, [value] * len(found))
            found[name] = found[name].astype("str")
        return found

    def __str__(self) -> str:
        label = f"{self._label()}\n" if self.recorded else ""
        return f"{label}{self._prompt()}\n{self._output()}".rstrip("\n")

    __repr__ = __str__

    def mark(self, *parts: str) -> Self:
        """Return the same capture with parts of its output marked where a notebook shows it.

        A part is a word of a rule or an address, say; an address is marked as a whole only. One that is
        not in the output changes nothing.
        """
        return replace(self, marked=parts)

    def _repr_html_(self) -> str:
        label = f"<i>{html.escape(self._label())}</i>\n" if self.recorded else ""
        lines = self._output().splitlines()
        first = _FIRST if len(lines) > _LONG else len(lines)
        shown, rest = (self._marked_html("\n".join(part)) for part in (lines[:first], lines[first:]))
        prompt = f"{label}<b>{html.escape(self._prompt())}</b>\n"
        box = f'<pre style="{_BOX}">{prompt}{shown}</pre>'
        if not rest:
            return box
        unfolded = " open" if "<mark" in rest else ""
        return (
            f"{box}<details{unfolded}><summary>{len(lines) - first} more lines</summary>"
            f'<pre style="{_BOX}">{rest}</pre></details>'
        )

    def _marked_html(self, text: str) -> str:
        """Return a part of the output as HTML, with what is to be marked."""
        wanted = "|".join(_whole(part) for part in self.marked if part)
        pieces = re.split(f"({wanted})", text) if wanted else [text]
        return "".join(
            f'<mark style="{_MARKED}">{html.escape(piece)}</mark>' if at % 2 else html.escape(piece)
            for at, piece in enumerate(pieces)
        )

    def _prompt(self) -> str:
        return redact(f"{self.place} $ {self.command}")

    def _label(self) -> str:
        when = self.started.astimezone(UTC)
        return f"{RECORDED}{when:%Y-%m-%d %H:%M} UTC on Docker {self.docker}, not live]"

    def _output(self) -> str:
        parts = [part.rstrip("\n") for part in (self.stdout, self.stderr) if part.strip("\n")]
        if self.timed_out:
            parts.append(f"[stopped after {self.seconds:.1f} s, exit code {self.code}]")
        elif self.code:
            parts.append(f"[exit code {self.code}]")
        return redact("\n".join(parts))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with join tokens redacted, since evidence leaves the lab.

        `started` is ISO 8601 text, `argv` a list; all other names and types are those of the fields.
        """
        row = asdict(self)
        del row["marked"]  # it is about a page, and not about what ran
        return row | {
            "argv": [redact(word) for word in self.argv],
            "stdout": redact(self.stdout),
            "stderr": redact(self.stderr),
            "started": self.started.isoformat(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the capture that `to_json` gave; raises UsageError for anything else."""
        for name, kind in _JSON_TYPES.items():
            if not isinstance(row.get(name), kind):
                raise UsageError(f"not a capture: {name!r} is {row.get(name)!r}")
        if not all(isinstance(word, str) for word in row["argv"]):
            raise UsageError(f"not a capture: 'argv' is {row['argv']!r}")
        try:
            return cls(
                **{name: row[name] for name in _JSON_TYPES if name not in ("argv", "started")},
                argv=tuple(row["argv"]),
                started=datetime.fromisoformat(row["started"]),
            )
        except ValueError as exc:
            raise UsageError(f"not a capture: 'started' is {row['started']!r}: {exc}") from exc


def _whole(part: str) -> str:
    """Return the pattern of a part to mark: `10.0.0.2` is not in `10.0.0.21`."""
    before = r"(?<![\w.])" if part[0].isalnum() else ""
    after = r"(?!\w|\.\d)" if part[-1].isalnum() else ""
    return f"{before}{re.escape(part)}{after}"


def argv_of(command: str | Sequence[str]) -> tuple[str, ...]:
    """Split a command into words as a shell would, without any shell.

    A sequence of strings is taken as it is. Raises UsageError for an empty command, for a word that is
    no string, for an unclosed quote, and for what only a shell understands (pipes, redirections, `;`),
    unless it is quoted.
    """
    if not isinstance(command, str):
        argv = words("command", command)
    else:
        for word in _QUOTED.sub("_", command).split():
            if _SHELL_WORD.fullmatch(word):
                raise UsageError(
                    f"{word!r} in `{command}`: there is no shell here that would understand it",
                    hint="run one command and go on in Python (.lines, .table); quote the word if"
                    " it belongs to the command; or say sh -c '…' and mean it",
                )
        try:
            argv = shlex.split(command)
        except ValueError as exc:
            raise UsageError(f"`{command}`: {exc}") from exc
    if not argv:
        raise UsageError("an empty command", hint="say what to run, for example 'ip neigh'")
    return tuple(argv)


def words(parameter: str, value: object, *, form: str = "") -> list[str]:
    """Return a parameter that takes words: a list of them as it is, one string split as a shell would.

    None is no word. Raises UsageError, which names the parameter, for anything else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as exc:
            raise UsageError(f"{parameter} is {value!r}: {exc}") from exc
    found: list[str] = []
    for one in value if isinstance(value, Iterable) and not isinstance(value, bytes) else [value]:
        if not isinstance(one, str):
            raise UsageError(
                f"{parameter} takes words, and {one!r} is of the type {type(one).__name__}",
                hint=f"write {form or f'{parameter}=[…], a list of strings, or one line of words'}",
            )
        found.append(one)
    return found


def table(captures: Iterable[Capture]) -> pd.DataFrame:
    """Stack the tables of many captures of the same tool, in their order, with the same columns.

    Raises UsageError where there are no captures or their columns differ, and what `Capture.table`
    raises.
    """
    import pandas as pd

    stacked: list[pd.DataFrame] = []
    first = ""
    for capture in captures:
        found = capture.table
        if stacked and list(found.columns) != list(stacked[0].columns):
            raise UsageError(f"`{first}` and `{capture.command}` do not make the same table")
        first = first or capture.command
        stacked.append(found)
    if not stacked:
        raise UsageError("no captures, so no columns either")
    return pd.concat(stacked, ignore_index=True)
