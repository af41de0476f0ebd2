"""The picture of the design: data goes one way, and one list of versions is kept in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from labkit import paths

# Left to right: a module may import from its left, never from its right.
ORDER = [
    ("errors", "paths", "progress", "variants", "cells", "caged"),
    ("channel",),
    ("engines",),
    ("cage",),
    ("topology", "diagnosis"),
    ("probes", "parsers"),
    ("evidence",),
    ("recording",),
    ("replay",),
    ("swarm",),
    ("experiments",),
    ("faults",),
    ("tally",),
    ("plots", "checks", "panel"),
    ("release",),
    ("runner", "submission", "handed_in"),
    ("report", "bench", "claims", "gradebook", "execution"),
    ("grading", "feedback"),
    ("cli",),
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imports(path: Path) -> set[str]:
    """The labkit modules that a file imports while it runs, inside functions too."""
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("labkit"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("labkit.")}
    return found - {"__version__"}


def test_nothing_on_the_right_is_imported_on_the_left() -> None:
    wrong = []
    for path in sorted((paths.REPOSITORY / "labkit").rglob("*.py")):
        parts = path.relative_to(paths.REPOSITORY / "labkit").with_suffix("").parts
        if parts[0] == "__init__":
            continue
        wrong += [f"{parts[0]} imports {o}" for o in imports(path) if RANK[o] > RANK[parts[0]]]
    assert not wrong


def test_what_waits_for_a_lab_waits_on_the_labs_clock() -> None:
    """A replay has nothing to wait for, so no experiment may sleep by itself."""
    root = paths.REPOSITORY / "labkit"
    files = [root / "swarm.py", *(root / "experiments").glob("*.py"), *(root / "faults").glob("*.py")]
    on_nodes = "watcher.py"  # its text runs on a node
    wrong = [
        f"{path.name}, line {node.lineno}"
        for path in files
        if path.name != on_nodes
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert not wrong, "use lab.pause, lab.wait_for, or place.node.link.pause"


def test_conda_and_pip_want_the_same() -> None:
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((paths.REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{project['requires-python']}", "pip"]
    assert pip["pip"][:-1] == project["dependencies"]
    assert pip["pip"][-1] == "-e ."


def test_the_lock_pins_every_dependency_with_hashes() -> None:
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]
    lock = (paths.REPOSITORY / "requirements.lock").read_text()
    pinned = {m.lower().replace("_", "-") for m in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.M)}
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[><=]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names <= pinned | {"qemu.qmp"}
    assert "--hash=sha256:" in lock


def test_the_command_starts_without_loading_what_it_may_not_need() -> None:
    heavy = ["pandas", "matplotlib", "docker", "nbconvert", "nbclient", "jupytext", "cryptography"]
    code = f"import sys, labkit.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_readme_names_only_commands_that_exist() -> None:
    text = (paths.REPOSITORY / "README.md").read_text()
    makefile = (paths.REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    from typer.main import get_command

    from labkit.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"`?labkit ([a-z]+)", text)) <= known
