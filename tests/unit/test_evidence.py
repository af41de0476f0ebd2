"""Evidence on disk: what is written is read, and what does not fit is found and told per question."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labkit import variants
from labkit.errors import UsageError
from labkit.evidence import audit, cells, format, reader
from labkit.evidence import files as evidence
from labkit.evidence import writer as writing
from labkit.evidence.audit import Finding
from labkit.evidence.writer import Writer

SETUP, RUN = "lab = labkit.attach()", "seen = a.run('ip neigh')"
ADA, BOB = variants.of("ada"), variants.of("bob")
NODES = [{"name": "node1", "address": "172.30.0.2", "container": "x", "docker": "26.1"}]
LAB = {"lab": "default", "engine": "vm", "accel": "tcg", "labkit": "0.1.0", "nodes": NODES}
Row = dict[str, Any]


def command(line: str = "ip neigh", **changes: Any) -> Row:
    row: Row = {
        "node": "node1",
        "place": "hello.1",
        "netns": None,
        "pid": 7,
        "argv": line.split(),
        "ready": False,
        "code": 0,
        "stdout": "10.0.1.6 dev eth0\n",
        "stderr": "",
        "began": time.time(),
        "ran": 0.0,
        "timed_out": False,
    }
    return row | changes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Evidence of three cells: the set-up, an experiment, and one after the last check."""
    path = tmp_path / "toy.evidence.jsonl"
    writer = Writer(path, "ada")
    for run, (text, kind, row) in enumerate(
        [
            (SETUP, "lab", LAB),
            (SETUP, "command", command(f"docker service create --publish {ADA.port}:3000")),
            (RUN, "command", command()),
            ("lab.clean()", "command", command("docker service rm hello")),
        ],
        1,
    ):
        writer.write(kind, cells.Cell(run, "", text), writer.now(), row, docker="26.1")
    return path


def notebook(*outputs: str) -> Row:
    """A notebook with the question `who`, before which the first two of those cells stand."""

    def cell(text: str, *shown: str, **marks: Any) -> Row:
        told = [{"output_type": "execute_result", "data": {"text/plain": t}} for t in shown]
        metadata = {"nbgrader": marks} if marks else {}
        return {"cell_type": "code", "source": text, "metadata": metadata, "outputs": told}

    return {
        "cells": [
            {"cell_type": "markdown", "source": "# Toy", "metadata": {}},
            cell(SETUP),
            cell("answer = 1", grade=False, solution=True, grade_id="answer-who"),
            cell(RUN, *outputs),
            cell("check()", grade=True, solution=False, grade_id="check-who"),
            cell("lab.clean()"),
        ]
    }


def forged(path: Path, change: Callable[[int, Row], Row]) -> None:
    """Change lines and make the chain whole again, as who knows how it is made can do."""
    previous, texts = "0" * 64, []
    for at, line in enumerate(path.read_text().splitlines(), 1):
        row = change(at, json.loads(line))
        row.pop("hash")
        text = json.dumps(row | {"previous": previous}, separators=(",", ":"))[:-1]
        previous = hashlib.sha256(text.encode()).hexdigest()
        texts.append(f'{text},"hash":"{previous}"}}\n')
    path.write_text("".join(texts))


def sentences(path: Path, **more: Any) -> list[tuple[str | None, str]]:
    found = audit.problems(path, learner="ada", notebook=notebook(), **more)
    return [(finding.question, finding.sentence) for finding in found]


# --- on disk -------------------------------------------------------------------------------------


def test_what_is_written_is_read(file: Path) -> None:
    found = reader.read(file)
    assert found.broken == ()
    assert found.learner == "ada"
    assert [line.kind for line in found.lines] == ["lab", "command", "command", "command"]
    assert found.lines[2].capture.text == "10.0.1.6 dev eth0\n"  # type: ignore[union-attr]
    assert found.lines[0].capture is None
    assert found.lines[2].asked == "`ip neigh` on hello.1"
    assert audit.problems(file, learner="ada", notebook=notebook()) == []
    packed = file.with_suffix(".jsonl.gz")
    evidence.pack(file, packed)
    assert reader.read(packed).lines == found.lines
    once = packed.read_bytes()
    evidence.pack(file, packed)
    assert packed.read_bytes() == once


def test_another_process_goes_on_with_the_chain(file: Path) -> None:
    def write(writer: Writer, text: str) -> None:
        writer.write("command", cells.Cell(1, "", text), writer.now(), command(), docker="26.1")

    first, second = Writer(file, "ada"), Writer(file, "ada")
    for turn in range(3):
        write(first, f"first {turn}")
        write(second, f"second {turn}")
    with open(file, "a") as half:  # killed while it wrote
        half.write('{"number":11,"ki')
    write(first, "last")
    found = reader.read(file)
    assert (len(found.lines), found.broken) == (11, ())
    file.unlink()
    write(second, "anew")
    assert [line.row["number"] for line in reader.read(file).lines] == [1]


def _write_many(path: Path, count: int) -> None:
    writer = Writer(path, "ada")
    for _ in range(count):
        writer.write("command", cells.Cell(1, "", RUN), writer.now(), command(), docker="26.1")


def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "both.evidence.jsonl"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_write_many, args=(path, 50)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    found = reader.read(path)
    assert (len(found.lines), found.broken) == (100, ())


def test_a_full_file_is_left_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(writing, "MAX_BYTES", len(before) + 100)
    writer = Writer(file, "ada")
    with pytest.raises(OSError, match="it has reached"):
        writer.write("command", cells.Cell(9, "", RUN), writer.now(), command(), docker="26.1")
    assert file.read_bytes() == before
    monkeypatch.setattr(reader, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="is larger than"):
        reader.read(file)


def test_a_packed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.evidence.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(format.MAX_BYTES + 10)))
    with pytest.raises(UsageError, match="is larger than 64 MiB"):
        reader.read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"no json\n", b"[]\n", b'{"a": 1}\n', b"\xff\xfe", b"[" * 9999]
)
def test_what_is_no_evidence_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.evidence.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds no evidence"):
        reader.read(path)
    (finding,) = audit.problems(path)
    assert finding.question is None
    assert audit.problems(tmp_path / "none")[0].sentence.endswith("No such file or directory")
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(b"x" * 999)[:-9])
    assert "cannot be read" in audit.problems(torn)[0].sentence


@pytest.mark.parametrize(
    "change",
    [
        {"argv": "ip neigh"},
        {"argv": [1]},
        {"code": "0"},
        {"stdout": None},
        {"began": float("nan")},
        {"ran": -1},
        {"ran": 1e300},
        {"began": "1"},
        {"started": "yesterday"},
        {"started": "2026-11-22T14:52:00"},
        {"started": "0001-01-01T00:00:00+23:59"},
        {"kind": "spell"},
        {"error": 5},
        {"cut": 5},
    ],
)
def test_a_line_that_is_none_is_left_out_and_told(change: Row, file: Path) -> None:
    forged(file, lambda at, row: row | change if at == 3 else row)
    found = reader.read(file)
    assert len(found.lines) == 3
    assert (3, "line 3 is no line of evidence") in found.broken


# --- what does not fit ---------------------------------------------------------------------------


def test_every_byte_counts(file: Path) -> None:
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        file.write_bytes(changed)
        assert audit.problems(file, learner="ada"), f"byte {at} of {len(whole)}"


def test_an_edited_output_is_told_for_its_question(file: Path) -> None:
    file.write_text(file.read_text().replace("10.0.1.6 dev", "10.0.1.9 dev"))
    assert sentences(file) == [
        ("who", "line 2 (`docker service create --publish "
         f"{ADA.port}:3000` on hello.1) was changed after it was written; so it is with 1 more."),
        (None, "line 4 (`docker service rm hello` on hello.1) was changed after it was written."),
    ]  # fmt: skip


def test_a_missing_line_is_told(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]))
    told = "before line 2 (`ip neigh` on hello.1) a line was taken out, put in or moved."
    assert sentences(file) == [("who", told)]


def test_another_learners_evidence_is_told(file: Path) -> None:
    found = audit.problems(file, learner="bob", notebook=notebook())
    assert found[0] == Finding(
        "who", "line 1 (attach()) is of 'ada', not of 'bob'; so it is with 2 more."
    )


def test_another_learners_variant_under_the_own_name_is_told(file: Path) -> None:
    forged(file, lambda _, row: row | {"learner": "bob"})
    found = audit.problems(file, learner="bob", notebook=notebook())
    assert [finding.question for finding in found] == ["who"]
    assert f"has the port {ADA.port}; that of 'bob' is {BOB.port}" in found[0].sentence
    assert not audit.problems(file, learner="not an id")[0].question


def test_names_and_subnets_of_variants() -> None:
    eve = variants.of("eve")
    argv = ["docker", "network", "create", "--subnet", eve.subnet, eve.network, "net-of-mine"]
    assert [name for name, *_ in variants.seen_in(argv, ADA)] == ["subnet", "name"]
    assert not list(variants.seen_in(argv, eve))
    assert not list(variants.seen_in(["curl", f"{eve.port}:3000"], ADA))


def test_times_that_cannot_be_are_told(file: Path) -> None:
    def moved(seconds: float) -> Callable[[int, Row], Row]:
        def move(at: int, row: Row) -> Row:
            then = datetime.fromisoformat(row["started"]) + timedelta(seconds=seconds)
            return row | {"started": then.isoformat()} if at == 3 else row

        return move

    whole = file.read_text()
    forged(file, moved(3600))
    told = dict(sentences(file))
    assert "which is still to come" in told["who"]
    assert any("ended 3600 s before line 3, which stands above it" in s for _, s in sentences(file))
    late = "of cell run [4], was asked 3600 s before the earlier cell run [3]"
    assert [s for _, s in sentences(file) if late in s], sentences(file)
    file.write_text(whole)
    forged(file, moved(-3600))
    assert any("ended 3600 s before line 2" in s for _, s in sentences(file))
    file.write_text(whole)
    forged(file, lambda at, row: row | {"ran": 60.0} if at == 3 else row)
    assert "it ran for 60.0 s, and its answer was there after 0.0 s" in sentences(file)[0][1]
    file.write_text(whole)
    later = datetime.now(UTC) + timedelta(days=1)
    assert "before the notebook was handed out" in audit.early(reader.read(file), later)[0].sentence


def test_shown_output_that_is_not_in_the_evidence_is_told(file: Path) -> None:
    shown = str(reader.read(file).lines[2].capture)
    assert audit.problems(file, learner="ada", notebook=notebook(shown)) == []
    (found,) = audit.problems(file, learner="ada", notebook=notebook(shown.replace("1.6", "1.9")))
    assert found.question == "who"
    assert "`hello.1 $ ip neigh` that is not in the evidence" in found.sentence
    (found,) = audit.problems(file, learner="ada", notebook=notebook(f"[recorded …]\n{shown}"))
    assert "shows output of a recording" in found.sentence


def test_a_forged_file_does_not_hold_the_judge_up(tmp_path: Path) -> None:
    path = tmp_path / "long.evidence.jsonl"
    row = {"session": "x", "cell": "", "source": "", "learner": "ada", "docker": "26.1", "seconds": 0}
    moment = datetime.now(UTC).isoformat()
    with open(path, "w") as file:
        for number in range(20_000):
            whole = {"number": number, "kind": "lab", "run": 20_000 - number, **row, "started": moment}
            text = json.dumps({**whole, **LAB, "previous": ""}, separators=(",", ":"))
            file.write(f'{text[:-1]},"hash":"{"0" * 64}"}}\n')
    began = time.process_time()
    assert audit.problems(path, learner="ada", notebook=notebook())
    assert time.process_time() - began < 10
