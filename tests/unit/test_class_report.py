"""The report on a class: what strangers send is read with care, summed up, and shown harmlessly."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labkit import __version__
from labkit.classroom import report, returned
from labkit.cli import app
from labkit.errors import UsageError

OK = {"ok": True, "seconds": 1.5, "message": "well", "remedy": ""}
FILE: dict[str, Any] = {
    "kind": returned.KIND,
    "format": returned.FORMAT,
    "kit": __version__,
    "learner": "ada",
    "date": "2026-10-04T18:00:00+00:00",
    "system": "Debian GNU/Linux 13",
    "python": "3.13.5",
    "processors": 8,
    "memory_gb": 16.4,
    "engine": {"kind": "vm", "accel": "kvm", "why": "no Docker engine answers"},
    "findings": [],
    "steps": [{"name": "up", **OK}, {"name": "down", **OK}],
    "made_s": 40.0,
    "restored_s": 2.0,
    "ready": True,
}
FAILED = {"name": "up", "ok": False, "seconds": 3, "message": "the disk is full", "remedy": "make room"}
NOT_READY = {"ready": False, "steps": [FAILED, {"name": "down", **OK}], "made_s": None}


def send(folder: Path, name: str = "class-check-ada.json", **other: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**FILE, **other}))
    return path


def refused(path: Path) -> str:
    with pytest.raises(returned.NotReturned) as caught:
        returned.read(path)
    return str(caught.value.args[0])


def test_a_file_is_read(tmp_path: Path) -> None:
    found = returned.read(send(tmp_path))
    assert (found.learner, found.ready, found.failed) == ("ada", True, "")
    assert (found.engine, found.made_s, found.restored_s) == ("vm, kvm", 40.0, 2.0)
    found = returned.read(send(tmp_path, **NOT_READY, engine={**FILE["engine"], "accel": None}))
    assert (found.ready, found.failed, found.remedy) == (False, "up", "make room")
    assert (found.engine, found.made_s) == ("vm", None)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"kind": "pictures"}, "no file of labkit class check"),
        ({"format": 2, "kit": "9.9"}, "labkit 9.9 wrote it in another form"),
        ({"format": True}, "in another form"),
        ({"kit": 1}, "'kit' is not a text"),
        ({"learner": "../eve"}, "'../eve' cannot be a learner's id"),
        ({"learner": ""}, "cannot be a learner's id"),
        ({"learner": None}, "'learner' is not a text"),
        ({"date": "yesterday"}, "'date' is not a date"),
        ({"date": "0001-01-01T00:00:00+14:00"}, "'date' is not a date"),
        ({"processors": "8"}, "'processors' is not a number"),
        ({"processors": True}, "'processors' is not a number"),
        ({"memory_gb": -1}, "'memory_gb' is not a number"),
        ({"memory_gb": float("nan")}, "'memory_gb' is not a number"),
        ({"made_s": float("inf")}, "'made_s' is not a number"),
        ({"restored_s": 10**300}, "'restored_s' is not a number"),
        ({"engine": "vm"}, "'engine' is not an object"),
        ({"engine": {}}, "'kind' is not a text"),
        ({"steps": []}, "'steps' is not a list of 1 to 20"),
        ({"steps": [{"name": "up", **OK}] * 21}, "'steps' is not a list of 1 to 20"),
        ({"steps": "up"}, "'steps' is not a list"),
        ({"steps": ["up"]}, "'steps' is not a list of objects"),
        ({"steps": [{"name": "up", "ok": 1}]}, "'message' is not a text"),
        ({"steps": [{**OK, "name": "up", "ok": "yes"}]}, "'ok' is not true or false"),
        ({"ready": False}, "contradicts itself"),
        ({"ready": True, "steps": [FAILED]}, "contradicts itself"),
        ({"ready": None}, "'ready' is not true or false"),
    ],
)
def test_what_no_check_writes_is_refused(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    assert said in refused(send(tmp_path, **other))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"1" * 10_000, "no JSON"),
        (b"[]", "no file of labkit class check"),
        (b"3", "no file of labkit class check"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "more than 200000 bytes"),
    ],
)
def test_what_is_no_file_of_ours(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert said in refused(path)


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    assert "a named pipe" in refused(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/etc/passwd")
    assert "a link" in refused(tmp_path / "b.json")
    assert "cannot be read" in refused(tmp_path / "c.json")


def test_a_class_is_summed_up(tmp_path: Path) -> None:
    send(tmp_path / "in", "ada.json")
    send(tmp_path / "in" / "Bob_1_assign", "bob.json", learner="bob", **NOT_READY, kit="0.0.1")
    send(tmp_path / "in", "cem.json", learner="cem", made_s=400, restored_s=9)
    (tmp_path / "in" / ".hidden.json").write_text("x")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = report.report([tmp_path / "in"], ["ada", "bob", "cem", "dan"])
    assert [(row["learner"], row["status"]) for row in found.rows] == [
        ("bob", "not ready"),
        ("dan", "missing"),
        ("ada", "ready"),
        ("cem", "ready"),
    ]
    assert found.rows[0]["step"] == "up"
    assert found.rows[0]["remedy"] == "make room"
    assert found.problems == []
    assert found.made == report.Times(2, 220.0, 400.0, "cem")
    assert found.restored == report.Times(3, 2.0, 9.0, "cem")
    assert found.other_kits == {"0.0.1": ["bob"]}


def test_the_newest_of_two_counts_and_this_is_said(tmp_path: Path) -> None:
    send(tmp_path, "old.json", **NOT_READY)
    send(tmp_path, "new.json", date="2026-10-04T21:00:00+02:00")
    send(tmp_path, "eve.json", learner="eve")
    found = report.report([tmp_path], ["ada"])
    assert [(row["learner"], row["status"]) for row in found.rows] == [
        ("ada", "ready"),
        ("eve", "ready"),
    ]
    assert found.problems == [
        {"file": "old.json", "sentence": "ada has sent a newer one, which counts: new.json"},
        {"file": "eve.json", "sentence": "eve is not on the roster"},
    ]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = send(tmp_path)
    assert report.report([path, tmp_path]).problems == []


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no file that ends in"):
        report.report([tmp_path])
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        report.report([tmp_path / "none"])


def test_a_tree_that_is_deep_and_a_name_that_is_odd(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(300):
        folder /= "x"
    send(folder)
    (tmp_path / "\x1b[31m[red].json").write_text("{}")
    (tmp_path / os.fsdecode(b"\xfc.json")).write_text("{}")
    found = report.report([tmp_path])
    assert [row["learner"] for row in found.rows] == ["ada"]
    assert {problem["file"] for problem in found.problems} == {"\\x1b[31m[red].json", "\\xfc.json"}


EVIL = '=HYPERLINK("http://x")[red]:bug:\x1b[2J\ud800'


def test_a_strangers_text_does_nothing_on_terminal_and_in_the_table(tmp_path: Path) -> None:
    steps = [{**FAILED, "message": EVIL, "remedy": EVIL, "name": EVIL}]
    send(tmp_path / "in", "a.json", **{**NOT_READY, "steps": steps}, kit=EVIL, system=EVIL)
    table = tmp_path / "out" / "class.csv"
    argv = ["class", "report", str(tmp_path / "in"), "--csv", str(table)]
    done = CliRunner().invoke(app, argv, env={"COLUMNS": "400"})
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "[red]:bug:\\x1b[2J\\ud800" in done.stdout
    assert "ready: 0; not ready: 1; missing: 0" in done.stdout
    with table.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["message"].startswith("'=HYPERLINK")
    assert row["system"].startswith("'=")


def test_the_command(tmp_path: Path) -> None:
    send(tmp_path / "in", "ada.json")
    send(tmp_path / "in", "bob.json", learner="bob", kit="0.0.1")
    (tmp_path / "in" / "broken.json").write_text("{")
    roster = tmp_path / "class.csv"
    roster.write_text("folder,student\nAnna,ada\nBob,bob\nZoe,zoe\n")
    argv = ["class", "report", str(tmp_path / "in"), "--roster", str(roster)]
    done = CliRunner().invoke(app, argv, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for line in (
        "broken.json: it is no JSON, or a part of it is missing",
        f"labkit 0.0.1, and yours is {__version__}: bob",
        "labkit up that makes the swarm: median 40.0 s of 2, worst 40.0 s (bob)",
        "labkit up that restores it: median 2.0 s of 2, worst 2.0 s (bob)",
        "ready: 2; not ready: 0; missing: 1",
    ):
        assert line in done.stdout
    found = json.loads(CliRunner().invoke(app, [*argv, "--json"]).stdout)
    assert [row["status"] for row in found["rows"]] == ["missing", "ready", "ready"]
    assert found["made"]["median"] == 40.0
    assert found["other_kits"] == {"0.0.1": ["bob"]}


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        report.write_csv(send(tmp_path) / "class.csv", [])
