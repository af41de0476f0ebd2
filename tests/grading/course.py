"""A course of one small lab that needs no swarm, and the ways of thirty learners to hand it in."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from labkit import variants
from labkit.authoring import release
from labkit.evidence import cells
from labkit.evidence import files as evidence
from labkit.evidence.writer import Writer
from labkit.nbgrader_cells import grade_id_of

LAB = "01_count_things"
SOURCE = """\
# Count things

```{code-cell}
import labkit
from labkit import checks
you = labkit.variant()
numbers = [3, 1, 2]
```

Which is the largest?

```{code-cell}
:tags: [answer:largest]
### BEGIN SOLUTION
largest = 3
### END SOLUTION
```

```{code-cell}
:tags: [check:largest, points:2]
\"\"\"The largest of your numbers.\"\"\"
checks.equals(largest, max(numbers), name="the largest", node="node2")
```

What do they add up to?

```{code-cell}
:tags: [answer:total]
### BEGIN SOLUTION
total = 6
### END SOLUTION
```

```{code-cell}
:tags: [check:total, points:3]
\"\"\"The sum of your numbers.\"\"\"
checks.close(total, sum(numbers), abs=0.5, name="the sum")
### BEGIN HIDDEN TESTS
assert total == 6, "a_secret_of_the_hidden_test"
### END HIDDEN TESTS
```

Which port is yours?

```{code-cell}
:tags: [answer:port]
### BEGIN SOLUTION
port = you.port
### END SOLUTION
```

```{code-cell}
:tags: [check:port, points:1]
\"\"\"The port that is yours.\"\"\"
checks.equals(port, you.port, name="your port")
```

+++ {"tags": ["answer:why", "points:1.5"]}

Why is that?

<!-- BEGIN SOLUTION -->
Because it is so.
<!-- END SOLUTION -->
"""
RIGHT = {"largest": "largest = 3", "total": "total = 6", "port": "port = you.port"}
POINTS = {"largest": 2.0, "total": 3.0, "port": 1.0}

Notebook = dict[str, Any]


def sources(directory: Path) -> list[Path]:
    """Write the course's only source; returns where."""
    path = directory / "labs" / f"{LAB}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE)
    return [path]


class Course:
    """The released notebook, and what learners make of it."""

    def __init__(self, source: Path) -> None:
        self.released: Notebook = json.loads(release.build(source))

    def answered(self, **answers: str) -> Notebook:
        """A copy with these answers, by question; the others are as they were handed out."""
        notebook = deepcopy(self.released)
        for question, text in answers.items():
            find(notebook, f"answer-{question}")["source"] = text
        return notebook

    def with_code(self, code: str, at: int = 1) -> Notebook:
        """All answers right, and a cell of the learner's own at a place."""
        notebook = self.answered(**RIGHT)
        notebook["cells"].insert(at, own(code))
        return notebook


def find(notebook: Notebook, grade_id: str) -> dict[str, Any]:
    """The cell with a grade id."""
    cell: dict[str, Any] = next(c for c in notebook["cells"] if grade_id_of(c) == grade_id)
    return cell


def own(code: str) -> dict[str, Any]:
    """A code cell of a learner's own."""
    cell: dict[str, Any] = nbformat.v4.new_code_cell(code)  # type: ignore[no-untyped-call]
    return dict(cell)


@dataclass(frozen=True)
class Learner:
    """What one learner hands in, and what becomes of it."""

    make: Callable[[Course], Notebook | bytes | None]
    points: float
    """As a person would give them."""
    says: tuple[str, ...] = ()
    """Words that the report of this learner has."""
    status: str = "graded"


def _without(course: Course, *names: str) -> Notebook:
    notebook = course.answered(**RIGHT)
    gone = [find(notebook, name) for name in names]
    notebook["cells"] = [c for c in notebook["cells"] if c not in gone]
    return notebook


def _duplicated(course: Course) -> Notebook:
    notebook = course.answered(**{**RIGHT, "largest": "largest = 1"})
    copy = deepcopy(find(notebook, "answer-largest"))
    copy["source"] = RIGHT["largest"]
    check = deepcopy(find(notebook, "check-total"))
    notebook["cells"] += [copy, check]
    return notebook


def _edited(course: Course, question: str, text: str) -> Notebook:
    notebook = course.answered(largest="largest = 0", total="total = 0")
    find(notebook, f"check-{question}")["source"] = text
    return notebook


def _edited_given(course: Course) -> Notebook:
    notebook = course.answered(largest="largest = 9")
    code = "import labkit\nfrom labkit import checks\nyou, numbers = labkit.variant(), [9]"
    notebook["cells"][1] = own(code)
    return notebook


def _unmarked(course: Course) -> Notebook:
    notebook = course.answered(**RIGHT)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    return notebook


def _retyped(course: Course) -> Notebook:
    notebook = course.answered(**RIGHT)
    cell = find(notebook, "answer-total")
    cell["cell_type"] = "markdown"
    del cell["outputs"], cell["execution_count"]
    return notebook


def _scripted(course: Course) -> Notebook:
    notebook = course.with_code(_PAGE)
    find(notebook, "answer-why")["source"] = f"Because {_SCRIPT}"
    return notebook


def _flooded(course: Course) -> bytes:
    notebook = course.answered(**RIGHT)
    output = {"output_type": "stream", "name": "stdout", "text": ["y" * 999 + "\n"] * 200_000}
    notebook["cells"][1]["outputs"] = [output]
    return json.dumps(notebook).encode()


_SAY_YES = "checks.equals = checks.close = lambda *a, **k: None"
_BOMB = "import os\nwhile True:\n    os.fork()"
_HOG = "hog = [0] * (50 * 2**30 // 8)"
_SLOW_HOG = "hog = []\nwhile True:\n    hog.append(b'x' * 10_000_000)"
_READ = """\
import glob, os
found = []
for path in ["/etc/passwd", "/etc/shadow", *glob.glob("../*"), "../solved/01_count_things.ipynb"]:
    try:
        found.append((path, open(path).read()))
    except OSError as error:
        found.append((path, str(error)))
print(found)"""
_SOCKET = """\
import socket
try:
    socket.create_connection(("127.0.0.1", 22), timeout=2)
    print("a way out")
except OSError as error:
    print("no way out:", error)
socket.create_connection(("192.0.2.1", 80), timeout=2)"""
_DELETE = (
    "import shutil\nshutil.rmtree('..', ignore_errors=True)\nshutil.rmtree('/', ignore_errors=True)"
)
_SCRIPT = "<script>document.title = 'mine'</script><img src=x onerror='document.title = 1'>"
_PAGE = f"""\
from IPython.display import HTML, SVG, Markdown
page = {_SCRIPT!r}
drawn = SVG(f"<svg xmlns='http://www.w3.org/2000/svg'>{{page}}</svg>")
display(HTML(page), Markdown(page), drawn)"""
_KILL = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(1, signal.SIGKILL)"
_SUICIDE = "import os\nos._exit(3)"
_GRADEBOOK = """\
import sqlite3
book = sqlite3.connect("../../gradebook.db")
book.execute("update grade set manual_score = 100")
book.commit()"""
_LEAK = "largest = 3\nprint('a' * 200_000_000)"
_STUBBORN = """\
while True:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        continue"""

LEARNERS: dict[str, Learner] = {
    "solved": Learner(lambda c: c.answered(**RIGHT, why="Because 3 is more than 2."), 6),
    "half": Learner(lambda c: c.answered(largest="largest = 3", total="total = 7"), 2),
    "nearly": Learner(lambda c: c.answered(**{**RIGHT, "total": "total = 6.25"}), 3),
    "empty": Learner(lambda c: c.answered(), 0),
    "no_cells": Learner(
        lambda c: {**c.released, "cells": []}, 0, ("notebook without a cell",), "unreadable"
    ),
    "nothing": Learner(lambda c: None, 0, ("not handed in",), "missing"),
    "deleted_check": Learner(
        lambda c: _without(c, "check-largest", "check-port"), 6, ("check-largest is missing",)
    ),
    "deleted_answer": Learner(lambda c: _without(c, "answer-total"), 3, ("answer-total is missing",)),
    "duplicated": Learner(
        _duplicated, 4, ("answer-largest is there more than once", "check-total is there more")
    ),
    "edited_check": Learner(
        lambda c: _edited(c, "largest", "checks.equals(largest, 0)"), 0, ("check-largest was edited",)
    ),
    "print_check": Learner(
        lambda c: _edited(c, "total", "print('all good')"), 0, ("check-total was edited",)
    ),
    "unmarked": Learner(_unmarked, 6),
    "retyped": Learner(_retyped, 6, ("answer-total was made a markdown cell",)),
    "says_yes": Learner(
        lambda c: c.answered(largest=f"largest = 0\n{_SAY_YES}", total="total = 0"),
        0,
        ("answer-largest sets checks",),
    ),
    "edited_given": Learner(_edited_given, 0, ("sets checks, numbers", "given code cell is missing")),
    "forged_evidence": Learner(lambda c: c.answered(**RIGHT), 6, ("was changed after it was written",)),
    "others_evidence": Learner(lambda c: c.answered(**RIGHT), 6, ("is of 'solved', not of",)),
    "others_answers": Learner(
        lambda c: c.answered(**{**RIGHT, "port": f"port = {variants.of('solved').port}"}), 5
    ),
    "endless": Learner(lambda c: c.with_code("while True: pass"), 6, ("took longer than",)),
    "stubborn": Learner(
        lambda c: c.answered(**{**RIGHT, "total": _STUBBORN}), 2, ("did not stop",), "stopped"
    ),
    "hog": Learner(lambda c: c.with_code(_HOG), 6, ("asked for more memory",)),
    "slow_hog": Learner(
        lambda c: c.with_code(_SLOW_HOG, at=5), 2, ("more than 2 GiB of memory",), "stopped"
    ),
    "bomb": Learner(lambda c: c.with_code(_BOMB, at=5), 2, ("more than", "another process"), "stopped"),
    "not_json": Learner(lambda c: b"%PDF-1.4 \xff\xfe", 0, ("not JSON",), "unreadable"),
    "deep_json": Learner(lambda c: b'{"cells": ' + b"[" * 100_000, 0, ("not JSON",), "unreadable"),
    "writes_200_mb": Learner(lambda c: c.answered(**{**RIGHT, "largest": _LEAK}), 6, ("MB of output",)),
    "has_200_mb": Learner(_flooded, 6),
    "reads": Learner(lambda c: c.with_code(_READ), 6, ("read /etc/passwd", "read /home/solved")),
    "socket": Learner(lambda c: c.with_code(_SOCKET), 6, ("tried to use the network",)),
    "deletes": Learner(lambda c: c.with_code(_DELETE), 6, ("tried to change /home,",)),
    "scripts": Learner(_scripted, 6),
    "kills": Learner(lambda c: c.with_code(_KILL), 6, ("signal 9 to process 1",)),
    "ends": Learner(lambda c: c.with_code(_SUICIDE, at=5), 2, ("its kernel died",), "stopped"),
    "gradebook": Learner(lambda c: c.with_code(_GRADEBOOK), 6, ("gradebook.db",)),
}


def hand_in(course: Course, directory: Path) -> None:
    """Write what every learner hands in, as DIR/STUDENT/NOTEBOOK.ipynb."""
    for name, learner in LEARNERS.items():
        folder = directory / name
        folder.mkdir(parents=True)
        made = learner.make(course)
        if made is not None:
            text = made if isinstance(made, bytes) else json.dumps(made).encode()
            (folder / f"{LAB}.ipynb").write_bytes(text)
    for name in ("solved", "forged_evidence"):
        write_evidence(directory / name / f"{LAB}{evidence.SUFFIX}", name)
    forged = directory / "forged_evidence" / f"{LAB}{evidence.SUFFIX}"
    forged.write_text(forged.read_text().replace("3 packets", "9 packets", 1))
    others = directory / "others_evidence" / f"{LAB}{evidence.SUFFIX}"
    others.write_bytes((directory / "solved" / others.name).read_bytes())


def write_evidence(path: Path, learner: str) -> None:
    """Write that a lab was attached, and three commands with their answers."""
    writer = Writer(path, learner)
    node = {"name": "node1", "address": "10.1.1.2", "container": "node1", "docker": "26.1.5"}
    lab = {"lab": "default", "engine": "vm", "accel": None, "labkit": "0.1.0", "nodes": [node]}
    attaching = cells.Cell(1, "", "labkit.attach()")
    writer.write("lab", attaching, writer.now(), lab, docker="26.1")
    for number in range(3):
        began = writer.now()
        row = {
            "node": "node1", "place": "node1", "netns": None, "pid": None, "argv": ["ip", "neigh"],
            "ready": False, "code": 0, "stdout": f"{number + 2} packets\n", "stderr": "",
            "began": began, "ran": 0.0, "timed_out": False,
        }  # fmt: skip
        writer.write(
            "command", cells.Cell(2 + number, "", f"a.run({number})"), began, row, docker="26.1"
        )
