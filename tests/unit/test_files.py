"""What is written is whole or not there; what killed writers leave is removed by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from labkit import files

KILLED = """
import os, signal, sys
from pathlib import Path
from labkit import files
with files.{what} as path:
    (path if path.is_file() else path / "file").write_text("half")
    print(path, flush=True)
    os.kill(os.getpid(), signal.{number})
"""


def killed(what: str, number: str = "SIGKILL") -> Path:
    """Kill a process in the body of a function of `files`; returns the path that it was given."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(what=what, number=number)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -getattr(signal, number), done.stderr
    return Path(done.stdout.strip())


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "marks.json"
    target.write_text("old")
    left = killed(f"replacing(Path({str(target)!r}))")
    assert target.read_text() == "old"
    assert left.parent == tmp_path
    assert left.exists()
    files.write_text(target, "new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_what_another_writer_is_at_stays(tmp_path: Path) -> None:
    target = tmp_path / "marks.json"
    with files.replacing(target) as first:
        files.write_text(target, "second")
        files.remove_leftovers(tmp_path)
        first.write_text("first")
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_only_the_files_own_leftovers_go_with_it(tmp_path: Path) -> None:
    left = killed(f"replacing(Path({str(tmp_path / 'a')!r}))")
    files.write_text(tmp_path / "b", "")
    assert left.exists()
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_rights_follow_the_mode_and_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "open", "")
        files.write_text(tmp_path / "secret", "", mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / n).stat().st_mode & 0o777 for n in ("open", "secret")] == [0o640, 0o600]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that nobody else uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_scratch_of_a_killed_process_goes_with_the_next(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed("scratch()")
    assert left.is_dir()
    os.utime(left, (0, 0))
    with files.scratch() as mine:
        (mine / "file").write_text("")
        os.utime(mine, (0, 0))
        files.remove_scratch()
        assert list(temporary.iterdir()) == [mine]
    assert list(temporary.iterdir()) == []
