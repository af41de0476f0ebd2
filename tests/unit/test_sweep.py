"""What a killed build has left is ended and removed, and never that of one that is at work."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from labkit import paths
from labkit.engines import debian
from labkit.engines.vm import checkpoints


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which a build was killed half way, with its directory for temporary files beside."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = paths.cache()
    (cache / "unfinished-machine-1" / "tree").mkdir(parents=True)
    (cache / "unfinished-root-1.tar").write_text("half")
    (cache / ".accel.json.1.partial").write_text("half")
    (cache / "machine-1").mkdir()
    return cache


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_what_is_half_made_goes_and_what_is_whole_stays(cache: Path) -> None:
    debian.sweep()
    assert names(cache) == {"machine-1", "build.lock"}


@pytest.mark.parametrize("known_by", ["its directory", "its TMPDIR"])
def test_a_program_of_a_killed_build_is_ended(cache: Path, known_by: str) -> None:
    with debian._spacious_tmp() as environment:  # as a killed build never leaves it
        place = Path(environment["TMPDIR"])
        by_directory = known_by == "its directory"
        cwd, env = (place, dict(os.environ)) if by_directory else (Path("/"), environment)
        with subprocess.Popen(["sleep", "600"], cwd=cwd, env=env) as left:
            debian.sweep()
            assert not psutil.pid_exists(left.pid)
        assert not place.exists()


def test_nothing_goes_while_somebody_builds(cache: Path) -> None:
    before = names(cache)
    with debian.build_lock():
        (cache / "unfinished-now").mkdir()
        debian.sweep()
        assert names(cache) == {"machine-1", "build.lock", "unfinished-now"} != before


def test_no_cache_is_made_by_looking_for_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "none"))
    debian.sweep()
    checkpoints.sweep()
    assert not (tmp_path / "none").exists()


def test_half_a_checkpoint_goes(cache: Path) -> None:
    home = checkpoints.home() / "monday"
    (home / ".unfinished-half").mkdir(parents=True)
    (home / "whole").mkdir()
    checkpoints.sweep()
    assert names(home) == {"whole"}
