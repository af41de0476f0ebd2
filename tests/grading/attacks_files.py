"""Attacks by what is handed in: files, names, notebooks and evidence, in a table that can be extended.

Each row is one learner's folder. Beside it lies that of `ada`, whose work is honest and must stay as it
is. A row says what becomes of the submission and which words the report has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.evidence import files as evidence
from labkit.evidence import reader, signing
from tests.grading import course
from tests.grading.course import LAB, RIGHT, Course

Row = dict[str, Any]
NOTEBOOK, EVIDENCE = f"{LAB}.ipynb", f"{LAB}{evidence.SUFFIX}"


@dataclass(frozen=True)
class Place:
    """What an attack has at hand."""

    folder: Path  # the learner's own
    ada: Path  # an honest learner's
    key: Path  # the host's private key
    course: Course

    def notebook(self, name: str = NOTEBOOK, **answers: str) -> Path:
        """Hand in the right answers, and others for some questions."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.course.answered(**{**RIGHT, **answers})))
        return path

    def evidence(self, name: str = EVIDENCE) -> Path:
        """Hand in evidence of one's own."""
        course.write_evidence(self.folder / name, self.folder.name)
        return self.folder / name


@dataclass(frozen=True)
class Attack:
    """One folder: how it is made, and what becomes of it."""

    make: Callable[[Place], object]
    outcome: str
    """taken, missing, unreadable or refused."""
    says: tuple[str, ...] = ()
    folder: str = "mallory"
    points: float | None = None
    """Where it is marked in the batch: the points that it is worth, None where it is refused."""
    in_batch: bool = False


# --- how they are made ---------------------------------------------------------------------------


def _linked(place: Place) -> None:
    (place.folder / NOTEBOOK).symlink_to(place.ada / NOTEBOOK)


def _hard_linked(place: Place) -> None:
    os.link(place.notebook(), place.folder / "second.txt")


def _socket(place: Place) -> None:
    here = os.getcwd()
    os.chdir(place.folder)  # a socket's path has 108 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(NOTEBOOK)
    finally:
        os.chdir(here)


def _sparse(place: Place) -> None:
    with (place.folder / NOTEBOOK).open("wb") as file:
        file.truncate(10**12)


def _evidence(make: Callable[[Path], object], name: str = EVIDENCE) -> Callable[[Place], None]:
    def both(place: Place) -> None:
        place.notebook()
        make(place.folder / name)

    return both


def _device(path: Path) -> None:
    os.mknod(path, 0o20644, os.makedev(1, 5))


def _bomb(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        for _ in range(100):
            file.write(bytes(2**20))


def _with_evidence_of(change: Callable[[Row], Row]) -> Callable[[Place], None]:
    """Hand in ada's evidence, changed, with a chain that is whole again."""

    def made(place: Place) -> None:
        place.notebook()
        rechain(place.ada / EVIDENCE, place.folder / EVIDENCE, change)

    return made


def _renamed(row: Row) -> Row:
    text = json.dumps(row).replace('"ada"', '"mallory"')
    changed: Row = json.loads(text)
    return changed


def _another_year(row: Row) -> Row:
    later = datetime.fromisoformat(row["started"]).replace(year=2025)
    return _renamed({**row, "started": later.isoformat(timespec="microseconds")})


def _kits_recording(place: Place) -> None:
    place.notebook()
    recorded = evidence.of_lab(paths.EVIDENCE, "03_reach_a_container")

    def change(row: Row) -> Row:
        changed: Row = json.loads(
            json.dumps(row).replace('"learner"', '"mallory"').replace("5400", "5555")
        )
        changed["learner"] = changed.pop("mallory", "mallory")
        return {**changed, "session": "00000000"}

    rechain(recorded, place.folder / EVIDENCE, change)


def rechain(source: Path, target: Path, change: Callable[[Row], Row]) -> None:
    """Write evidence with each line changed and its chain made anew, as who reads the code can do."""
    previous, texts = "0" * 64, []
    for line in reader.content(source).splitlines():
        row = change(json.loads(line))
        row.pop("hash")
        text = json.dumps({**row, "previous": previous}, separators=(",", ":"))[:-1]
        previous = hashlib.sha256(text.encode()).hexdigest()
        texts.append(f'{text},"hash":"{previous}"}}\n')
    target.write_text("".join(texts))


def _another_labs(place: Place) -> None:
    notebook = place.course.with_code("lab = labkit.attach()")
    (place.folder / NOTEBOOK).write_text(json.dumps(notebook))
    place.evidence()


def _signature_of_ada(place: Place) -> None:
    place.notebook()
    place.evidence()
    signature = signing.signature_beside(place.ada / EVIDENCE)
    shutil.copy(signature, place.folder / signature.name)


def _changed_after_signing(place: Place) -> None:
    place.notebook()
    path = place.evidence()
    signing.sign(path, signing.private_key(place.key), lab=LAB, learner="mallory")
    rechain(path, path, lambda row: {**row, "docker": "28.5"})


def _signed_by_own_key(place: Place) -> None:
    place.notebook()
    own = place.folder.parent.parent / "own.key"
    signing.make_key(own)
    signing.sign(place.evidence(), signing.private_key(own), lab=LAB, learner="mallory")


def _copies(*names: str) -> Callable[[Place], None]:
    def made(place: Place) -> None:
        for name in names:
            place.notebook(name)

    return made


def _changed(change: Callable[[Row], None]) -> Callable[[Place], None]:
    """Hand in the right answers in a notebook that was changed by hand."""

    def made(place: Place) -> None:
        notebook = place.course.answered(**RIGHT)
        change(notebook)
        (place.folder / NOTEBOOK).write_text(json.dumps(notebook))

    return made


def _own_cell(**fields: Any) -> Callable[[Row], None]:
    def change(notebook: Row) -> None:
        notebook["cells"].insert(1, {**course.own("pass"), **fields})

    return change


def _plain(place: Place) -> Path:
    return place.notebook()


_LONG = "x" * 10_000_000
_NAMED: Mapping[str, str] = {
    "moodles_name": "Anna Müller_12345_assignsubmission_file_",
    "two_words": "Müller Anna",
    "not_utf8": os.fsdecode(b"M\xfcller"),
    "underscore": "_eve",
    "hidden": ".mallory",
    "right_to_left": "eve\u202egpj.exe",
    "terminal_codes": "\x1b[2J\x1b[31meve\x07",
    "sql": "eve'); DROP TABLE student;--",
    "markup": "<img src=x onerror=alert(1)>",
    "formula": '=HYPERLINK("http:example.org","ada")',
    "windows_path": "..\\..\\ada",
    "two_lines": "eve\nada 03: 22 of 22",
    "long": "e" * 200,
}

ATTACKS: dict[str, Attack] = {
    # the notebook's file
    "notebook_is_a_link": Attack(_linked, "unreadable", ("it is a link",)),
    "notebook_is_a_hard_link": Attack(_hard_linked, "taken", ("has 2 names", "hard link"), points=6),
    "notebook_is_a_pipe": Attack(
        lambda p: os.mkfifo(p.folder / NOTEBOOK), "unreadable", ("it is a named pipe",), points=0
    ),
    "notebook_is_a_socket": Attack(_socket, "unreadable", ("it is a socket",)),
    "notebook_is_a_device": Attack(lambda p: _device(p.folder / NOTEBOOK), "unreadable", ("a device",)),
    "notebook_is_a_folder": Attack(
        lambda p: (p.folder / NOTEBOOK).mkdir(), "unreadable", ("it is a folder",)
    ),
    "notebook_of_a_terabyte": Attack(_sparse, "unreadable", ("1000000 MB", "is the limit")),
    "zip_in_its_place": Attack(
        lambda p: (p.folder / "work.zip").write_bytes(b"PK\3\4"), "missing", ("holds work.zip",)
    ),
    # the evidence's file
    "evidence_is_a_link": Attack(
        lambda p: (p.notebook(), (p.folder / EVIDENCE).symlink_to(p.ada / EVIDENCE)),
        "taken",
        (f"{EVIDENCE} is a link to another file and was not read",),
    ),
    "evidence_is_a_pipe": Attack(
        _evidence(os.mkfifo), "taken", (f"{EVIDENCE} is a named pipe and was not read",), points=6
    ),
    "evidence_is_a_device": Attack(_evidence(_device), "taken", ("is a device and was not read",)),
    "evidence_is_a_bomb": Attack(
        _evidence(_bomb, f"{EVIDENCE}.gz"), "taken", ("larger than 64 MiB",), points=6
    ),
    "evidence_is_one_long_line": Attack(
        _evidence(lambda path: path.write_bytes(b'{"number":1,"' + b"x" * 60_000_000)),
        "taken",
        ("holds no evidence",),
    ),
    "evidence_is_empty_lines": Attack(
        _evidence(lambda path: path.write_bytes(b"\n" * 60_000_000)), "taken", ("holds no evidence",)
    ),
    "evidence_is_not_packed": Attack(
        _evidence(lambda path: path.write_bytes(b"x" * 99), f"{EVIDENCE}.gz"),
        "taken",
        ("cannot be read: Not a gzipped file",),
    ),
    # the evidence
    "evidence_of_ada": Attack(_with_evidence_of(lambda row: row), "taken", ("is of 'ada', not of",)),
    "evidence_of_ada_renamed": Attack(
        _with_evidence_of(_renamed), "taken", (f"shares with ada {LAB}: 1 session",), points=6
    ),
    "evidence_of_another_year": Attack(
        _with_evidence_of(_another_year),
        "taken",
        (f"shares with ada {LAB}", "before the notebook was handed out"),
    ),
    "evidence_of_the_kit": Attack(
        _kits_recording, "taken", ("shares with the kit's recording of 03_reach_a_container", "ids")
    ),
    "evidence_of_another_lab": Attack(
        _another_labs, "taken", ("no cell of the notebook asked what it holds",)
    ),
    "signature_of_ada": Attack(_signature_of_ada, "taken", ("is of another learner",)),
    "changed_after_signing": Attack(_changed_after_signing, "taken", ("is of another file",)),
    "signed_by_own_key": Attack(_signed_by_own_key, "taken", ("was made with another key",)),
    # the notebook's name and place
    "second_download": Attack(
        _copies(f"{LAB} (1).ipynb"), "taken", (f"{LAB} (1).ipynb was taken for {NOTEBOOK}",), points=6
    ),
    "jupyters_copy": Attack(_copies(f"{LAB}-Copy1.ipynb"), "taken", ("-Copy1.ipynb was taken for",)),
    "both": Attack(
        _copies(NOTEBOOK, f"{LAB} (1).ipynb"), "taken", (f"{LAB} (1).ipynb lay beside {NOTEBOOK}",)
    ),
    "subfolder": Attack(
        _copies(NOTEBOOK, f"backup/{NOTEBOOK}"), "taken", ("in backup was not graded",), points=6
    ),
    "only_a_subfolder": Attack(_copies(f"work/{NOTEBOOK}"), "taken", ("it lay in the folder work",)),
    "two_subfolders": Attack(
        _copies(f"a/{NOTEBOOK}", f"b/{NOTEBOOK}"), "missing", (f"{LAB} in a, b was not graded",)
    ),
    "another_name": Attack(_copies("ans\x1b[31mwers.ipynb"), "missing", (r"no lab is called ans\x1b",)),
    # the learner's name
    **{
        name: Attack(_plain, "refused", ("no learner's id", "--roster"), folder, in_batch=True)
        for name, folder in _NAMED.items()
    },
    # the notebook's content
    "half_a_character": Attack(
        _changed(
            lambda n: course.find(n, "answer-total").update(source="total = 6  # \ud800", id="\udfff")
        ),
        "taken",
        points=6,
    ),
    "markup_in_words": Attack(
        lambda p: p.notebook(why="a < b, [why](javascript:alert(1)) ![p](http://192.0.2.1/p.png)"),
        "taken",
        points=6,
    ),
    "long_names": Attack(
        _changed(_own_cell(id=_LONG, metadata={"nbgrader": {"grade_id": _LONG, "grade": True}})),
        "taken",
        points=6,
    ),
    "a_hundred_thousand_outputs": Attack(
        _changed(_own_cell(outputs=[{"data": {"text/plain": "x"}, _LONG[:99]: 1}] * 100_000)), "taken"
    ),
}
