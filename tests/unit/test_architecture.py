"""The picture of the design: data goes one way, and each truth is kept in one place."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from labkit import engines
from labkit.cli import commands

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "labkit"

# Left to right: a room may import from its left, never from its right. A room is a package or a module.
ORDER = [
    ("errors", "files", "paths", "progress", "programs", "schema", "words", "yaml_lines"),
    ("logs", "nbgrader_cells", "parsers", "plain", "topology", "transport", "variants"),
    ("capture", "engines"),
    ("evidence",),
    ("swarm", "workspace"),
    ("experiments", "outcomes"),
    ("faults", "diagnosis", "plots", "checks", "panel", "tries"),
    ("authoring",),
    ("grading",),
    ("doctor", "benchmark", "page"),
    ("classroom",),
    ("cli",),
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

# Inside a package, where the order matters.
LIVE = (
    "capture",
    "transport",
    "engines",
    "topology",
    "errors",
    "paths",
    "programs",
    "progress",
    "swarm",
    "files",
)
LONGEST = 450  # lines of a file; a longer one says why in its first lines ("Long because …")


def modules() -> list[Path]:
    return sorted(path for path in KIT.rglob("*.py") if path.parent != KIT / "data")


def room(path: Path) -> str:
    return path.relative_to(KIT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The labkit modules that a file imports while it runs, inside functions too: engines.base."""
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
            base = node.module.removeprefix("labkit").removeprefix(".")
            found |= {".".join(filter(None, [base, alias.name])) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name[7:] for a in node.names if a.name.startswith("labkit.")}
    return found - {"__version__"}


def test_every_room_is_in_the_picture() -> None:
    rooms = {room(path) for path in modules()} - {"__init__", "__main__"}
    assert rooms == set(RANK)


def test_nothing_on_the_right_is_imported_on_the_left() -> None:
    wrong = [
        f"{path.relative_to(KIT)} imports {name}"
        for path in modules()
        if room(path) not in ("__init__", "__main__")
        for name in imported(path)
        if RANK[name.split(".")[0]] > RANK[room(path)]
    ]
    assert not wrong


def test_the_live_core_knows_nothing_of_evidence() -> None:
    """Only `swarm.attach` joins the two: a swarm can be had without a record of it."""
    wrong = [
        f"{path.relative_to(KIT)} imports {name}"
        for path in [*(KIT / "swarm").glob("*.py"), *(KIT / "transport").glob("*.py")]
        if path.name != "attach.py"
        for name in imported(path)
        if name.split(".")[0] not in LIVE or name == "swarm.attach"
    ]
    assert not wrong


def test_only_the_engines_know_an_engine_by_name() -> None:
    wrong = []
    for path in modules():
        if room(path) == "engines":
            continue
        own = {f"engines.{name}" for name in engines.ENGINES}
        wrong += [
            f"{path.relative_to(KIT)} imports {name}"
            for name in imported(path)
            if any(name == engine or name.startswith(f"{engine}.") for engine in own)
        ]
        # Compared with a name, as in `engine.kind == "vm"`; in `docker exec` it is a program's.
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and "kind" in ast.unparse(node):
                names = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                wrong += [f"{path.relative_to(KIT)}: {ast.unparse(node)}"] * bool(
                    names & set(engines.ENGINES)
                )
    assert not wrong


def test_no_file_is_long_without_a_reason() -> None:
    wrong = []
    for path in modules():
        lines = path.read_text().splitlines()
        if len(lines) > LONGEST and "Long because" not in "\n".join(lines[:40]):
            wrong.append(f"{path.relative_to(KIT)} has {len(lines)} lines")
    assert not wrong


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_documents_name_the_same_order(document: str) -> None:
    text = (ROOT / document).read_text()
    block = re.search(r"<!-- order -->\n(.*?)<!-- /order -->", text, re.DOTALL)
    assert block, f"{document} has no <!-- order --> block"
    named = [set(re.findall(r"`(\w+)`", row)) for row in block[1].strip().splitlines()]
    assert named == [set(names) for names in ORDER]


def test_what_waits_for_a_lab_waits_on_the_labs_clock() -> None:
    """A replay has nothing to wait for, so no experiment may sleep by itself."""
    waiting = [path for path in modules() if room(path) in ("swarm", "experiments", "faults")]
    wrong = [
        f"{path.name}, line {node.lineno}"
        for path in waiting
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert not wrong, "use lab.pause, lab.wait_for, or place.node.link.pause"


def test_the_version_of_the_api_is_told_once() -> None:
    spoken = re.compile(r'"1\.\d\d"')
    files = [path for path in modules() if spoken.search(path.read_text())]
    assert [str(path.relative_to(KIT)) for path in files] == ["transport/base.py"]


def test_conda_and_pip_want_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{project['requires-python']}", "pip"]
    assert pip["pip"][:-1] == project["dependencies"]
    assert pip["pip"][-1] == "-e ."


def test_the_lock_pins_every_dependency_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {m.lower().replace("_", "-") for m in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.M)}
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[><=\[]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names <= pinned | {"qemu.qmp", "labkit"}
    assert "--hash=sha256:" in lock


def test_the_command_starts_without_loading_what_it_may_not_need() -> None:
    heavy = ["pandas", "matplotlib", "docker", "nbconvert", "nbclient", "jupytext", "cryptography"]
    heavy += [
        "labkit.engines.base",
        "logging",
        "yaml",
        "asyncio",
        "labkit.cli.swarms",
        "labkit.cli.labs",
    ]
    code = f"import sys, labkit.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_list_of_commands_is_the_one_of_their_modules() -> None:
    written = {(entry.module, "" if entry.group else name) for name, entry in commands.COMMANDS.items()}
    found = set()
    for module in {entry.module for entry in commands.COMMANDS.values()}:
        app = importlib.import_module(module).app
        for command in app.registered_commands:
            name = command.name or command.callback.__name__.rstrip("_")
            found.add((module, "" if (module, "") in written else name))
    assert found == written
    assert all(len(entry.line) < 64 for entry in commands.COMMANDS.values())


def test_readme_names_only_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    from typer.main import get_command

    from labkit.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"`?labkit ([a-z]+)", text)) <= known
