"""Checksums of sparse files, and which states are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit import paths
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import snapshots


def sparse(path: Path, parts: dict[int, bytes], size: int) -> Path:
    """A file with holes where nothing was written."""
    with path.open("wb") as file:
        for offset, data in parts.items():
            os.pwrite(file.fileno(), data, offset)
        os.truncate(file.fileno(), size)
    return path


def test_holes_and_zeros_have_the_same_checksum(tmp_path: Path) -> None:
    size, at = 5 * snapshots.CHUNK, 3 * snapshots.CHUNK + 17
    holes = sparse(tmp_path / "holes", {at: b"labkit"}, size)
    dense = sparse(tmp_path / "dense", {0: bytes(size), at: b"labkit"}, size)
    assert holes.stat().st_blocks < dense.stat().st_blocks
    assert snapshots.checksum(holes) == snapshots.checksum(dense)


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ({10: b"labkiT"}, 4 * snapshots.CHUNK),  # one bit
        ({snapshots.CHUNK + 10: b"labkit"}, 4 * snapshots.CHUNK),  # the same, elsewhere
        ({10: b"labkit", 3 * snapshots.CHUNK: b"x"}, 4 * snapshots.CHUNK),  # where a hole was
        ({10: b"labkit"}, 4 * snapshots.CHUNK - 1),  # shorter by a zero
    ],
)
def test_any_change_changes_the_checksum(tmp_path: Path, parts: dict[int, bytes], size: int) -> None:
    before = sparse(tmp_path / "before", {10: b"labkit"}, 4 * snapshots.CHUNK)
    after = sparse(tmp_path / "after", parts, size)
    assert snapshots.checksum(before) != snapshots.checksum(after)


def test_an_empty_file_has_a_checksum(tmp_path: Path) -> None:
    assert snapshots.checksum(sparse(tmp_path / "empty", {}, 0))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with states that were used in the order in which they are listed."""
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    names = [f"swarm-26.1-{n}-1-abc-0000000{n}" for n in range(1, 9)] + ["swarm-26.1-8-1-abc-00000009"]
    for at, name in enumerate(names):
        (tmp_path / "states" / name).mkdir(parents=True)
        record = tmp_path / "states" / name / snapshots.RECORD
        record.write_text("{}")
        os.utime(record, (at, at))
    return tmp_path / "states"


def left(home: Path) -> list[str]:
    """Nodes and making of the states that are left."""
    return sorted(
        path.name.removeprefix("swarm-26.1-").replace("-1-abc-0000000", "@") for path in home.iterdir()
    )


def test_replaced_states_go_and_then_the_least_used(home: Path) -> None:
    snapshots.prune(in_use=[])
    assert left(home) == ["3@3", "4@4", "5@5", "6@6", "7@7", "8@9"]


def test_what_is_in_use_stays(home: Path) -> None:
    in_use = [str(home / "swarm-26.1-1-1-abc-00000001"), str(home / "swarm-26.1-8-1-abc-00000008")]
    snapshots.prune(in_use)
    assert left(home) == ["1@1", "3@3", "4@4", "5@5", "6@6", "7@7", "8@8", "8@9"]


def test_the_newest_state_of_a_swarm_is_found(home: Path) -> None:
    found = snapshots.newest(SwarmSpec("26.1", 8, 1, "abc"))
    assert found
    assert found.name.endswith("00000009")
    assert snapshots.newest(SwarmSpec("26.1", 3, 2, "abc")) is None
