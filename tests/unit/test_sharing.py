"""A saved state that the users of one machine share: found, read, never written."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from labkit import files, paths
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import accel, bundle, image, isolation, process, sharing, snapshots
from labkit.errors import EngineError, UsageError
from labkit.progress import Progress

SPEC = SwarmSpec("26.1", 3, 1, "abcdefgh")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """This user's cache, which is empty, and one with a machine, a disk and a state in it."""
    own, other = tmp_path / "own" / "cache", tmp_path / "other" / "cache"
    monkeypatch.setattr(snapshots, "made_with", lambda _: {"kit": "this"})
    monkeypatch.setenv("LABKIT_HOME", str(other.parent))
    for name in (image.directory().name, image.nodes_directory("26.1").name):
        files.write_text(other / name / "disk.qcow2", name)
    unfinished = snapshots.unfinished("lab")
    unfinished.mkdir(parents=True, mode=0o700)
    for name in snapshots.FILES:
        (unfinished / name).write_bytes(b"held")
    snapshots.publish(SPEC, unfinished)
    monkeypatch.setenv("LABKIT_HOME", str(own.parent))
    return own, other


def test_what_is_shared_is_found_and_what_is_ones_own_comes_first(
    caches: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = caches
    assert snapshots.newest(SPEC) is None
    assert image.directory().parent == own
    monkeypatch.setenv("LABKIT_SHARED", str(other))
    assert image.directory().parent == image.nodes_directory("26.1").parent == other
    shared = snapshots.fitting(SPEC)
    assert shared.parent == other / "states"
    assert snapshots.home() == own / "states"
    assert bundle._inner(shared) == f"states/{shared.name}"
    newer = own / "states" / f"{shared.name[:-8]}ffffffff"
    newer.mkdir(parents=True)
    assert snapshots.newest(SPEC) == newer
    files.write_text(own / image.directory().name / "disk.qcow2", "mine")
    assert image.directory().parent == own


def test_a_shared_state_is_not_marked(
    caches: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_SHARED", str(caches[1]))
    shared = snapshots.fitting(SPEC)
    record = shared / snapshots.RECORD
    os.utime(record, (1, 1))
    snapshots.mark_used(shared)
    assert record.stat().st_mtime == 1
    monkeypatch.setenv("LABKIT_HOME", str(caches[1].parent))
    snapshots.mark_used(shared)
    assert time.time() - record.stat().st_mtime < 60


def test_everybody_can_read_it_and_nobody_write(
    caches: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(caches[1].parent))
    target = tmp_path / "common" / "state"
    before = os.umask(0o077)
    try:
        there = sharing.share(target, SPEC, Progress())
        again = sharing.share(target, SPEC, Progress())  # what is there is kept
    finally:
        os.umask(before)
    assert there == again == target / "states" / snapshots.fitting(SPEC).name
    for path in (target, *target.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o444), path
    assert {path.name for path in target.iterdir()} == {
        *("states", image.directory().name, image.nodes_directory("26.1").name)
    }
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "learner"))
    monkeypatch.setenv("LABKIT_SHARED", str(target))
    snapshots.verifier(snapshots.fitting(SPEC))()


def test_what_cannot_be_shared_is_told(
    caches: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(snapshots.SnapshotRefused, match="no saved state of 3 nodes"):
        sharing.share(tmp_path / "state", SPEC, Progress())
    monkeypatch.setenv("LABKIT_HOME", str(caches[1].parent))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        sharing.share(tmp_path / "file" / "state", SPEC, Progress())


@pytest.mark.parametrize(
    ("release", "mode", "expected"),
    [
        ((7, 2), 0o600, "{state}/ram"),
        ((7, 2), 0o444, "{lab}/ram"),
        ((8, 2), 0o444, "{state}/ram,readonly=on,rom=off"),
        (None, 0o444, "{state}/ram,readonly=on,rom=off"),
    ],
)
def test_a_memory_that_may_only_be_read(
    release: tuple[int, int] | None,
    mode: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, lab = tmp_path / "state", tmp_path / "lab"
    state.mkdir()
    lab.mkdir()
    (state / "ram").write_bytes(b"held")
    (state / "ram").chmod(mode)
    monkeypatch.setattr(os, "access", lambda file, _: bool(Path(file).stat().st_mode & 0o200))  # root
    monkeypatch.setattr(accel, "qemu_release", lambda: release)
    assert process._memory_of(state, lab) == expected.format(state=state, lab=lab)
    if (lab / "ram").exists():
        assert (lab / "ram").read_bytes() == b"held"
        assert stat.S_IMODE((lab / "ram").stat().st_mode) == 0o600


def test_without_a_network_of_its_own_no_shared_machine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_unshare", lambda: ["false"])
    with isolation.start_apart(["true"], []) as process_of_ones_own:
        assert process_of_ones_own.wait() == 0
    monkeypatch.setenv("LABKIT_SHARED", str(tmp_path))
    with pytest.raises(EngineError, match="everybody here has its keys"):
        isolation.start_apart(["true"], [])
    # Nor is one booted where no shared state fits: it has the same keys.
    monkeypatch.setattr(process, "_layer", lambda *_: None)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "own"))
    disks = tmp_path / "disks"
    disks.mkdir()
    with pytest.raises(EngineError, match="everybody here has its keys"):
        process.boot("lab", "26.1", disks, tmp_path / "nodes", memory_mb=1)


def test_without_the_variable_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_SHARED", raising=False)
    assert paths.caches() == [paths.cache()]
