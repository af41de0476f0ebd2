"""Saved states: restored swarms are whole, share one template, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from labkit import paths, swarm
from labkit.engines import debian
from labkit.engines.base import SwarmSpec
from labkit.engines.vm import accel, bundle, image, machine, process, snapshots
from labkit.engines.vm.checkpoints import MachineCheckpoints
from labkit.errors import BuildError, UnknownNameError, UsageError
from labkit.progress import Bars, Progress
from tests.conftest import Command

SPEC = SwarmSpec.of("26.1", 3, 1)
SPARE = "spare"


@pytest.fixture
def spare(lab: swarm.Lab) -> Iterator[swarm.Lab]:
    """A second lab, restored beside the first."""
    swarm.down(SPARE)
    started = swarm.up(SPARE, engine="vm", progress=Progress())
    try:
        assert started.restored
        yield started.lab
        started.lab.close()
    finally:
        swarm.down(SPARE)


def answers(lab: swarm.Lab) -> str:
    """Make a service, ask it through the routing mesh from the last node, and return who answered."""
    lab.service("proof", publish="8080:3000", replicas=1)
    asker = list(lab.nodes.values())[-1]
    answered = ""

    def look() -> tuple[bool, str]:
        nonlocal answered
        capture = asker.run("curl -sS -m 10 http://127.0.0.1:8080/whoami")
        answered = json.loads(capture.stdout)["container"] if capture.ok else ""
        return bool(answered), capture.stderr

    swarm.wait_for("the service to answer through the routing mesh", look)
    return answered


def test_nothing_of_the_proof_is_left_in_view(spare: swarm.Lab) -> None:
    assert spare.manager.docker.api.services() == []
    for node in spare.nodes.values():
        assert node.docker.api.containers(all=True) == []
    for box in spare.engine.client.containers.list(all=True):
        assert not box.attrs["ExecIDs"]
    assert len(spare.engine.client.containers.list(all=True)) == 3


def test_the_clock_of_a_restored_machine_is_right(spare: swarm.Lab) -> None:
    told = spare.node("node2").run(["date", "+%s.%N"])
    assert abs(float(told.check().stdout) - time.time()) < 3


def test_labs_share_a_template_that_none_can_touch(lab: swarm.Lab, spare: swarm.Lab) -> None:
    ours, theirs = machine.find(lab.name), machine.find(spare.name)
    assert ours
    assert theirs
    assert theirs.state == ours.state
    spare.network("only-here")
    answers(spare)
    snapshots.verifier(Path(ours.state))()  # raises where a byte has changed
    assert all(row["Name"] != "only-here" for row in lab.manager.docker.api.networks())


def test_reset_returns_to_the_fresh_swarm(spare: swarm.Lab, labkit: Command) -> None:
    answers(spare)
    spare.close()
    done = labkit("reset", "--lab", SPARE, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["restored"] is True
    again = swarm.get(SPARE)
    assert again.manager.docker.api.services() == []
    assert answers(again)
    again.close()


def test_a_checkpoint_brings_the_lab_back(spare: swarm.Lab, labkit: Command) -> None:
    answered = answers(spare)
    checkpoints = MachineCheckpoints(SPARE)
    for checkpoint in checkpoints.list():
        checkpoints.remove(checkpoint.name)
    assert labkit("checkpoint", "save", "with-proof", "--lab", SPARE).returncode == 0
    assert answers(spare) == answered  # the lab goes on
    spare.remove_service("proof")
    spare.close()
    done = labkit("checkpoint", "restore", "with-proof", "--lab", SPARE)
    assert done.returncode == 0, done.stderr
    back = swarm.get(SPARE)
    assert answers(back) == answered
    back.close()
    twice = labkit("checkpoint", "save", "with-proof", "--lab", SPARE)
    assert (twice.returncode, "already" in twice.stderr) == (2, True)
    (checkpoint,) = checkpoints.list()
    assert checkpoint.size < 3e9
    checkpoints.remove("with-proof")
    with pytest.raises(UnknownNameError):
        checkpoints.restore("with-proof")


@pytest.fixture
def copied(lab: swarm.Lab) -> Iterator[Path]:
    """A copy of the state, to be damaged: linked where only the record changes."""
    original = snapshots.newest(SPEC)
    assert original
    copy = snapshots.home() / "swarm-copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in snapshots.FILES:
        os.link(original / name, copy / name)
    shutil.copy(original / snapshots.RECORD, copy)
    yield copy
    shutil.rmtree(copy)


def own(path: Path) -> None:
    """Give a linked or mapped file a copy of its own under its name."""
    copy = path.with_suffix(".copy")
    with path.open("rb") as source, copy.open("wb") as target:
        os.truncate(target.fileno(), path.stat().st_size)
        for offset in chunks(path):
            os.pwrite(target.fileno(), os.pread(source.fileno(), snapshots.CHUNK, offset), offset)
    os.replace(copy, path)


def chunks(path: Path) -> list[int]:
    """The offsets where a sparse file has data."""
    with path.open("rb") as file:
        return list(snapshots.data_chunks(file.fileno(), path.stat().st_size))


def test_a_state_that_fits_is_taken(copied: Path) -> None:
    snapshots.check(copied)
    snapshots.verifier(copied)()


def test_a_changed_image_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "node_key", lambda _: "0" * 12)
    with pytest.raises(snapshots.SnapshotRefused, match="another node image"):
        snapshots.check(copied)


def test_another_processor_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = property(lambda _: ["-accel", "tcg", "-cpu", "qemu64"])
    monkeypatch.setattr(accel.Verdict, "options", other)
    with pytest.raises(
        snapshots.SnapshotRefused, match=r"another accelerator and CPU.*Westmere.*qemu64"
    ):
        snapshots.check(copied)


@pytest.mark.parametrize("name", [process.DEVICES, "root.qcow2"])
def test_a_truncated_file_is_refused(copied: Path, name: str) -> None:
    own(copied / name)
    os.truncate(copied / name, 1000)
    with pytest.raises(snapshots.SnapshotRefused, match=f"its file {name} has 1000 bytes, expected"):
        snapshots.check(copied)


def test_a_state_of_80_days_is_refused(copied: Path) -> None:
    record = snapshots.read(copied)
    record["created"] -= 80 * 86400
    (copied / snapshots.RECORD).write_text(json.dumps(record))
    with pytest.raises(snapshots.SnapshotRefused, match="80 days old"):
        snapshots.check(copied)


def test_a_record_that_is_no_record_is_refused(copied: Path) -> None:
    (copied / snapshots.RECORD).write_text("[]")
    with pytest.raises(snapshots.SnapshotRefused, match="cannot be read"):
        snapshots.check(copied)


@pytest.fixture
def home_of_its_own(lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home that has what this one has, linked: what is damaged there is damaged for nobody else."""
    state = snapshots.newest(SPEC)
    assert state
    with TemporaryDirectory(dir=paths.cache()) as home:
        for path in (image.directory(), image.nodes_directory(SPEC.docker), state):
            there = Path(home) / "cache" / path.relative_to(paths.cache())
            shutil.copytree(path, there, copy_function=os.link)
        monkeypatch.setenv("LABKIT_HOME", home)
        yield


def test_a_flipped_byte_never_runs_and_the_state_is_made_anew(
    home_of_its_own: None, capfd: pytest.CaptureFixture[str]
) -> None:
    state = snapshots.newest(SPEC)
    assert state
    ram = state / process.RAM
    own(ram)  # labs that run have the file mapped
    where = chunks(ram)[len(chunks(ram)) // 2] + 4321
    with ram.open("r+b") as file:
        before = os.pread(file.fileno(), 1, where)
        os.pwrite(file.fileno(), bytes([before[0] ^ 1]), where)
    swarm.down(SPARE)
    try:
        started = swarm.up(SPARE, engine="vm", progress=Bars())
        started.lab.close()
    finally:
        swarm.down(SPARE)
    assert not started.restored
    assert "its file ram is damaged" in capfd.readouterr().err
    made = snapshots.newest(SPEC)
    assert made
    assert made != state
    snapshots.verifier(made)()


def test_what_is_exported_is_a_swarm_elsewhere_without_any_network(
    lab: swarm.Lab, labkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "class.tar.zst"
    written = labkit("vm", "export", str(file), "--json")
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["file"] == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0
    # Longer than a unix socket's path may be: its owner does not choose how long a home's name is.
    home = tmp_path / ("elsewhere-" * 12)
    monkeypatch.setenv("LABKIT_HOME", str(home))
    monkeypatch.setenv("LABKIT_MIRROR", "http://127.0.0.1:9")  # nobody is there
    taken = labkit("vm", "import", str(file))
    assert taken.returncode == 0, taken.stderr
    try:
        done = labkit("up", "--engine", "vm", "--lab", "elsewhere", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["restored"] is True
        assert [node["state"] for node in told["nodes"]] == ["ready"] * 3
    finally:
        labkit("down", "--lab", "elsewhere")
        shutil.rmtree(home)  # pytest keeps its directories, and this one is large
    with file.open("r+b") as damaged:
        damaged.seek(file.stat().st_size // 2)
        damaged.write(b"labkit" * 4)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "third"))
    with pytest.raises(BuildError, match="is damaged"):
        bundle.read(file, Progress())
    assert [path.name for path in paths.cache().iterdir()] == ["build.lock"]
    monkeypatch.setattr(image, "_RECIPE", "another")
    with pytest.raises((BuildError, UsageError), match="another kit"):
        bundle.read(file, Progress())
    file.unlink()
