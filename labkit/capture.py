"""A command that was run somewhere in the lab, and everything that came back: the `Capture`.

Who runs commands is the swarm; this module only says what a run looks like afterwards: to a
person (like a terminal), to a program (a table), and on disk (JSON).
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from labkit import parsers
from labkit.errors import CommandFailed, UsageError, redact

if TYPE_CHECKING:
    import pandas as pd

    from labkit.transport.base import CommandResult

RECORDED = "[recorded "
"""What everything that is shown of a recorded capture begins with."""

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
    """One run of a command: what was asked, where, and all that came back.

    ``place`` is what a person calls the spot (`hello-a.1`, `node2/ingress_sbox`), ``node`` the
    node it is on, ``docker`` the Docker version there. ``started`` is in UTC. One that is ``recorded``
    comes from evidence and not from a swarm, and says so wherever it is shown.
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
        """The command as one would type it."""
        return shlex.join(self.argv)

    @property
    def text(self) -> str:
        """What the command printed."""
        return self.stdout

    @property
    def lines(self) -> list[str]:
        """What the command printed, line by line."""
        return self.stdout.splitlines()

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself, with exit code 0."""
        return self.code == 0 and not self.timed_out

    def check(self) -> Self:
        """Return this capture, or raise `CommandFailed` if the command failed."""
        if self.ok:
            return self
        stderr = self.stderr
        if self.timed_out:
            stderr += f"\nit was stopped after {self.seconds:.1f} s"
        raise CommandFailed(self.place, self.argv, self.code, stderr)

    @property
    def table(self) -> pd.DataFrame:
        """The output as a table, by the parser that fits the command, after `node` and `place`."""
        found = parsers.parse(self.argv, self.stdout, self.stderr, code=self.code)
        for at, (name, value) in enumerate((("node", self.node), ("place", self.place))):
            # Not a plain value: in an empty table that would make a column of another type.
            found.insert(at, name, [value] * len(found))
            found[name] = found[name].astype("str")
        return found

    def __str__(self) -> str:
        label = f"{self._label()}\n" if self.recorded else ""
        return f"{label}{self._prompt()}\n{self._output()}".rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        label = f"<i>{html.escape(self._label())}</i>\n" if self.recorded else ""
        # Inherited colours and no background of its own, to suit light and dark themes alike.
        return (
            '<pre style="border: 1px solid; border-radius: 4px; padding: 0.5em 0.8em;'
            ' color: inherit; background: transparent; overflow-x: auto; white-space: pre">'
            f"{label}<b>{html.escape(self._prompt())}</b>\n{html.escape(self._output())}</pre>"
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
        """Return plain JSON values, with join tokens blotted out: evidence leaves the lab."""
        row = asdict(self)
        return row | {
            "argv": [redact(word) for word in self.argv],
            "stdout": redact(self.stdout),
            "stderr": redact(self.stderr),
            "started": self.started.isoformat(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave; raise `UsageError` for anything else."""
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


def argv_of(command: str | Sequence[str]) -> tuple[str, ...]:
    """Split a command into its words, as a shell would, but never run one."""
    if not isinstance(command, str):
        words = list(command)
    else:
        for word in _QUOTED.sub("_", command).split():
            if _SHELL_WORD.fullmatch(word):
                raise UsageError(
                    f"{word!r} in `{command}`: there is no shell here that would understand it",
                    hint="run one command and go on in Python (.lines, .table); quote the word if"
                    " it belongs to the command; or say sh -c '…' and mean it",
                )
        try:
            words = shlex.split(command)
        except ValueError as exc:
            raise UsageError(f"`{command}`: {exc}") from exc
    if not words:
        raise UsageError("an empty command", hint="say what to run, for example 'ip neigh'")
    return tuple(words)


def table(captures: Iterable[Capture]) -> pd.DataFrame:
    """Stack the tables of many captures of the same tool, in their order."""
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
