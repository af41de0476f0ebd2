"""The shells that the page has opened in the swarm, and what was typed in each."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from labkit import swarm
from labkit.errors import UsageError
from labkit.page import actions
from labkit.page.actions import Shell


@dataclass(frozen=True)
class _Opened:
    """A shell that keeps what is typed, the command that opens it, and its terminal."""

    shell: Shell
    command: str
    terminal: object


class Shells:
    """The shells of a lab.

    One that keeps what is typed has a key of its own: the name of its terminal goes to another one
    once the shell has ended.
    """

    def __init__(self, lab: str) -> None:
        """Know of no shell yet."""
        self._lab = lab
        self._opened: dict[str, _Opened] = {}

    def open(self, shell: Shell, terminals: Any) -> dict[str, str]:
        """Open a shell in one of Jupyter's terminals; `shell` in the answer is its key, or empty."""
        key = secrets.token_hex(8) if shell.keeps else ""
        words, lab = list(shell.argv), ["--lab", self._lab, "-it"]
        if key:
            bash = words.index("bash")
            words[bash:bash] = ["env", f"HISTFILE={_kept(key)}", "PROMPT_COMMAND=history -a"]
        argv = [sys.executable, "-m", "labkit", "exec", *lab, *words]
        name = terminals.create(shell_command=argv)["name"]
        command = shlex.join(["labkit", "exec", *lab, *shell.argv])
        if key:
            self._opened[key] = _Opened(shell, command, terminals.terminals[name])
        return {"name": name, "place": shell.place.label, "command": command, "shell": key}

    def still_open(self, terminals: Any) -> list[dict[str, str]]:
        """Return the command and the key of each shell that has not ended, the newest last."""
        return [
            {"command": opened.command, "shell": key}
            for key, opened in self._opened.items()
            if opened.terminal in terminals.terminals.values()
        ]

    def typed(self, key: str) -> list[str]:
        """Return what was typed in a shell, ended or not, as cells of a notebook.

        Raises UsageError where nothing was, and for a shell that is not known.
        """
        if key not in self._opened:
            raise UsageError(
                "what was typed there is not known any more: Jupyter's server was started again",
                hint="open another terminal",
            )
        shell = self._opened[key].shell
        with contextlib.closing(swarm.get(self._lab)) as found:
            # No file is there where nothing was typed.
            lines = found.node(shell.place.node.name).run(["cat", _kept(key)]).lines
        if not (cells := actions.cells(shell, lines)):
            raise UsageError(
                f"no command was typed in {shell.place.label} yet",
                hint="type one in the terminal first",
            )
        return cells


def _kept(key: str) -> str:
    """Return the file, on the shell's node, that keeps what is typed."""
    return f"/run/labkit-typed-{key}"
