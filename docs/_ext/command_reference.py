"""The directive `commands`: every command of `labkit` with its arguments and options, from the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from labkit.cli import app as labkit_app

WIDTH = 88  # characters of a line that the page shows whole


def commands(command: Any, path: str = "labkit") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name, in the order of `labkit --help`; groups come first.

    A group that has no options of its own is left out.
    """
    subcommands = getattr(command, "commands", {})
    if command.params or not subcommands:
        yield path, command
    for name, inner in subcommands.items():
        yield from commands(inner, f"{path} {name}")


def section(path: str, command: Any) -> str:
    """Return one command's section in MyST: what it does, its usage, its arguments and options."""
    ordered = sorted(command.params, key=_is_option, reverse=True)
    usage = _wrapped(path, map(_usage, ordered))
    lines = [f"## {path}", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```{code-block} text", "", usage, "```", ""]
    if command.params:
        lines += ["| | meaning | default |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in ordered]
    return "\n".join(lines)


def _wrapped(path: str, words: Iterable[str]) -> str:
    """Return a usage in lines of at most `WIDTH` characters, each option together with its value."""
    lines = [path]
    for word in words:
        if len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{' ' * len(path)} {word}")
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    names = parameter.opts if _is_option(parameter) else [_value(parameter)]
    cells = [", ".join(f"`{name}`" for name in names), _help(parameter), _default(parameter)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _usage(parameter: Any) -> str:
    """Return a parameter as the line of usage has it: what may be left out in brackets."""
    if not _is_option(parameter):
        value = _value(parameter)
        return value if parameter.required or value.startswith("[") else f"[{value}]"
    alone = parameter.is_flag or parameter.count
    words = parameter.opts[0] if alone else f"{parameter.opts[0]} {_value(parameter)}"
    return words if parameter.required else f"[{words}]"


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _value(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


def _help(parameter: Any) -> str:
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    return f"{parameter.help or ''}{variable}"


def _default(parameter: Any) -> str:
    default = parameter.default
    if default in (None, "", False) or callable(default):
        return "required" if parameter.required else ""
    return f"`{Path(default).name if isinstance(default, Path) else default}`"


class Commands(SphinxDirective):
    """Puts in a section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_reread()  # the code may have changed since
        found = commands(typer.main.get_command(labkit_app))
        text = "\n\n".join(section(path, command) for path, command in found)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
