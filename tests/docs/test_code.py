"""Code in README and docs is true: commands and options exist, and so does what Python imports."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer.main

from labkit.cli import app
from tests.docs.markdown import PAGES, ROOT, Code, code_of

# A changelog tells of what was, and GitHub's templates are not pages.
CODE = [code for page in PAGES if page.name != "CHANGELOG.md" for code in code_of(page)]
PYTHON = [code for code in CODE if code.language == "python"]
_COMMAND = re.compile(r"(?:^|[\s(;/=])labkit((?: +[^\s;)]+)*)")


def command_lines() -> Iterator[tuple[Code, str]]:
    """Yield what follows the word `labkit` in everything that may be typed into a shell."""
    for code in CODE:
        if code.language in ("", "sh", "bash", "shell", "console"):
            for line in code.text.splitlines():
                yield from (
                    (code, found[1].strip()) for found in _COMMAND.finditer(line.split(" #")[0])
                )


@pytest.mark.parametrize(
    ("code", "line"), [pytest.param(code, line, id=f"{code}: {line}") for code, line in command_lines()]
)
def test_commands_and_options_exist(code: Code, line: str) -> None:
    command = tree()
    for word in shlex.split(line.replace("…", "")):
        if word == "--":  # the rest is another program's
            break
        if word.startswith("-"):
            known = [name for parameter in command.params for name in parameter.opts]
            assert word.partition("=")[0] in [*known, "--help"], f"no option {word}; there are {known}"
        elif subcommands := getattr(command, "commands", None):
            for name in word.split("|"):  # `vm export|import` names both
                assert name in subcommands or name.isupper(), f"no command {name}"
            command = subcommands.get(word.split("|")[0], command)


@cache
def tree() -> Any:
    """Return the command with all its subcommands."""
    return typer.main.get_command(app)


@pytest.mark.parametrize("code", PYTHON, ids=str)
def test_python_compiles_and_names_what_is_there(code: Code) -> None:
    parsed = ast.parse(code.text)
    known: dict[str, Any] = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                name = alias.name if alias.asname else alias.name.split(".")[0]
                known[alias.asname or name] = importlib.import_module(name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                known[alias.asname or alias.name] = attribute(module, alias.name)
    for node in ast.walk(parsed):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in known
        ):
            attribute(known[node.value.id], node.attr)


def attribute(holder: Any, name: str) -> Any:
    """Return what a module has by a name, a submodule too; raises ImportError where there is none."""
    return getattr(holder, name, None) or importlib.import_module(f"{holder.__name__}.{name}")


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for code in CODE
        if code.language == ""
        for target in re.findall(r"(?:^|\s)make ([a-z]+)", code.text, re.MULTILINE)
    }
    assert named <= targets
