"""A class's ZIP file: only what is graded is taken out, and nothing leaves the folder."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import UsageError
from labkit.grading import archive, submissions
from tests.grading.course import LAB

NOTEBOOK = f"{LAB}.ipynb"


def packed(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, "{}")
    return path


def taken(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name",
    [
        f"../{NOTEBOOK}",
        f"/tmp/ada/{NOTEBOOK}",
        f"ada/../../{NOTEBOOK}",
        f"..\\..\\ada\\{NOTEBOOK}",
        f"C:\\ada\\{NOTEBOOK}",
        f"ada/{'x' * 300}.ipynb",
    ],
)
def test_no_path_leaves_the_folder(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path, name, f"bob/{NOTEBOOK}")
    (note,) = archive.unpack(path, tmp_path / "out")
    assert note.endswith("and was not taken")
    assert taken(tmp_path / "out") == [f"bob/{NOTEBOOK}"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["class.zip", "out"]


def test_links_and_other_files_are_left(tmp_path: Path) -> None:
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w") as made:
        link = zipfile.ZipInfo(f"ada/{NOTEBOOK}")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, "/etc/passwd")
        made.writestr(f"__MACOSX/ada/._{NOTEBOOK}", "x")
        made.writestr("ada/report.pdf", "x")
        made.writestr(f"ada/{LAB}.evidence.jsonl", "x")
    notes = archive.unpack(path, tmp_path / "out")
    assert taken(tmp_path / "out") == [f"ada/{LAB}.evidence.jsonl"]
    assert [note.partition(" ")[0] for note in notes] == [f"ada/{NOTEBOOK}", "ada/report.pdf"]


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", [f"{LAB}.evidence", f"{LAB}.evidence (1)", f"{LAB} (2).evidence"])
def test_evidence_is_taken_by_every_name_that_it_has_in_a_folder(
    tmp_path: Path, name: str, packing: str
) -> None:
    notebook, evidence = f"ada/{LAB} (2).ipynb", f"ada/{name}.jsonl{packing}"
    path = packed(tmp_path, notebook, evidence, f"ada/{LAB}.evidence.txt")
    (note,) = archive.unpack(path, tmp_path / "out")
    assert note.startswith(f"ada/{LAB}.evidence.txt is no notebook and no evidence")
    (found,), _ = submissions.find(tmp_path / "out", [LAB])
    assert found.evidence == tmp_path / "out" / evidence


def test_a_folder_around_all_is_left_out(tmp_path: Path) -> None:
    path = packed(tmp_path, f"class 3/ada/{NOTEBOOK}", f"class 3/bob/{NOTEBOOK}")
    assert archive.unpack(path, tmp_path / "out") == []
    found, _ = submissions.find(tmp_path / "out", [LAB])
    assert [s.student for s in found] == ["ada", "bob"]
    theirs = packed(tmp_path, f"submitted/ada/week1/{NOTEBOOK}")
    archive.unpack(theirs, tmp_path / "nbgrader")
    assert submissions.find(tmp_path / "nbgrader", [LAB])[0][0].assignment == "week1"


def test_names_are_read_as_they_were_meant(tmp_path: Path) -> None:
    path = packed(tmp_path, f"Müller_1_file_/{NOTEBOOK}", f"xxxx/{NOTEBOOK}")
    # As programs write it that do not set the flag: UTF-8 in one entry, code page 437 in the other.
    data = path.read_bytes().replace(b"xxxx", "M\u00fc1".encode("cp437") + b"l")
    utf_8 = "Müller".encode()
    assert utf_8 in data
    path.write_bytes(_without_flag(data))
    archive.unpack(path, tmp_path / "out")
    assert taken(tmp_path / "out") == [f"Mü1l/{NOTEBOOK}", f"Müller_1_file_/{NOTEBOOK}"]


def _without_flag(data: bytes) -> bytes:
    """Clear the flag that says that names are UTF-8, in the local and the central headers."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        at = data.find(mark)
        while at >= 0:
            changed[at + offset] &= ~0x08
            at = data.find(mark, at + 1)
    return bytes(changed)


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(f"ada/{NOTEBOOK}", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr(f"ada/{NOTEBOOK}", "second")


def test_the_first_of_two_counts(tmp_path: Path) -> None:
    _twice(tmp_path / "class.zip")
    (note,) = archive.unpack(tmp_path / "class.zip", tmp_path / "out")
    assert "is in it twice" in note
    assert (tmp_path / "out" / "ada" / NOTEBOOK).read_text() == "first"


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(f"ada/{NOTEBOOK}", bytes(2 * 10**6))


def _many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        for number in range(30):
            made.writestr(f"learner{number}/{NOTEBOOK}", "")


def _encrypted(path: Path) -> None:
    _bomb(path)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


def _torn(path: Path) -> None:
    _bomb(path)
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_bomb, "is too large unpacked"),
        (_many, "has more than 20 files"),
        (_encrypted, "is encrypted"),
        (_torn, "cannot be unpacked"),
        (lambda path: path.write_bytes(b"PK\3\4 and no more"), "not a zip file"),
        (lambda path: path.symlink_to("/etc/passwd"), "a link to another file"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    tmp_path: Path, make: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10**6)
    monkeypatch.setattr(archive, "MAX_FILES", 20)
    make(tmp_path / "class.zip")
    with pytest.raises(UsageError, match=said) as refused:
        archive.unpack(tmp_path / "class.zip", tmp_path / "out")
    assert refused.value.hint
