"""A third engine: the life of a swarm on one that labkit does not know, without a change to `swarm`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from labkit import engines, swarm, topology
from labkit.engines.base import Acquired, Check, Connection, Recipe, SwarmSpec
from labkit.errors import EngineError, SwarmError, UnknownNameError
from labkit.progress import Progress
from labkit.swarm import membership, nodes
from labkit.transport.base import DaemonError
from tests.unit.fakes import Toy

T = TypeVar("T")
HERE = "tests.unit.test_engines:FakeEngine"


class FakeEngine:
    """An engine whose daemon holds a toy swarm of two nodes. It keeps each swarm that was made."""

    kind = "fake"
    running: dict[str, SwarmSpec]
    kept: set[SwarmSpec]

    def __init__(self) -> None:
        self.running, self.kept, self.toy = {}, set(), Toy()

    def refusal(self) -> str:
        return ""

    def label(self, lab: str) -> str:
        return lab

    def acquire(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], *, fresh: bool, progress: Progress
    ) -> Acquired[T]:
        self.running[lab] = spec
        connection = self.connection(lab)
        if spec in self.kept and not fresh:
            found = recipe.find(connection)
            recipe.prove(found)
            return Acquired(found, time.monotonic(), restored=True)
        found = recipe.make(connection)
        self.kept.add(spec)
        return Acquired(found, time.monotonic(), restored=False)

    def connection(self, lab: str) -> Connection:
        rows = [
            SimpleNamespace(
                name=f"box-{name}",
                attrs={
                    "Config": {"Hostname": name, "Labels": {"labkit.docker": "26.1"}},
                    "NetworkSettings": {"Networks": {"under": {"IPAddress": f"172.30.0.{number}"}}},
                    "State": {"Pid": number},
                },
            )
            for number, name in enumerate(self.toy.nodes, 2)
        ]
        client = SimpleNamespace(
            containers=SimpleNamespace(list=lambda **_: rows if lab in self.running else []),
            close=lambda: None,
        )
        reach = {f"box-{name}": node.reach for name, node in self.toy.nodes.items()}
        return Connection(
            kind=self.kind,
            accel=None,
            client=client,  # type: ignore[arg-type]
            environment={"DOCKER_HOST": "fake://"},
            label=lab,
            open_socket=lambda container, _, path: reach[container](path),
        )

    def find(self, lab: str) -> Connection | None:
        return self.connection(lab) if lab in self.running else None

    def spec_of(self, lab: str) -> SwarmSpec | None:
        return self.running.get(lab)

    def labs(self) -> list[str]:
        return sorted(self.running)

    def remove(self, lab: str) -> bool:
        return self.running.pop(lab, None) is not None

    def sweep(self) -> None:
        return

    def crash_log(self, lab: str) -> str | None:
        return "it fell over" if lab == "crashed" else None

    def checkpoints(self, lab: str) -> None:
        return

    def accel(self) -> None:
        return

    def facts(self) -> dict[str, str]:
        return {"engine": self.kind}

    def examine(self) -> list[Check]:
        return [Check("fake", True, "always there")]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeEngine]:
    """The engine, in the list like the others; making nodes and a swarm takes no time on it."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")  # nobody is there
    monkeypatch.setitem(engines.ENGINES, "fake", HERE)
    engine = engines.choose("fake")[0]
    assert isinstance(engine, FakeEngine)
    monkeypatch.setattr(nodes, "start", lambda lab, connection, _: nodes.lab_on(lab, connection))
    monkeypatch.setattr(membership, "form", lambda *_: None)
    ready = [{"name": name, "state": "ready"} for name in engine.toy.nodes]
    monkeypatch.setattr(membership, "node_rows", lambda _: ready)
    yield engine
    engine.running.clear()
    engine.kept.clear()


def up(lab: str = "third", **more: bool) -> swarm.UpResult:
    return swarm.up(lab, nodes=2, engine="fake", progress=Progress(), **more)


def test_a_swarm_lives_on_it(fake: FakeEngine) -> None:
    made = up()
    assert (made.restored, made.lab.engine.kind, list(made.lab.nodes)) == (
        False,
        "fake",
        ["node1", "node2"],
    )
    assert made.lab.manager.run("echo hello").text == "echo hello\n"
    found = swarm.get("third")
    assert found.engine.environment == {"DOCKER_HOST": "fake://"}
    assert engines.labs() == ["third"]
    again = swarm.reset("third", progress=Progress())
    assert again.restored
    assert swarm.down("third")
    assert not swarm.down("third")
    with pytest.raises(UnknownNameError):
        swarm.get("third")


def test_what_it_kept_is_proved_and_made_again_on_demand(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not up().restored
    swarm.down("third")
    assert not up(fresh=True).restored
    swarm.down("third")
    down: list[dict[str, Any]] = [
        {"name": "node1", "state": "ready"},
        {"name": "node2", "state": "down"},
    ]
    monkeypatch.setattr(membership, "node_rows", lambda _: down)
    monkeypatch.setattr(swarm.lifecycle, "_READY_SECONDS", 0.5)
    with pytest.raises(SwarmError, match="node1 ready, node2 down"):
        up()
    assert engines.labs() == []


def test_of_many_who_want_a_lab_one_makes_it(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    acquire = FakeEngine.acquire

    def slowly(self: FakeEngine, lab: str, *args: Any, **more: Any) -> Acquired[Any]:
        made.append(lab)
        assert engines.find(lab) is None  # nobody sees it yet
        return acquire(self, lab, *args, **more)

    monkeypatch.setattr(FakeEngine, "acquire", slowly)
    monkeypatch.setattr(
        topology, "load", lambda *_, **__: SimpleNamespace(nodes=["node1", "node2"], docker="26.1")
    )
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: swarm.find_or_up("third", engine="fake", progress=Progress()), range(4))
        )
    assert made == ["third"]
    assert [list(lab.nodes) for lab in found] == [["node1", "node2"]] * 4


def test_who_made_a_lab_tells_so_though_another_takes_it_down(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        removed = []

        def rows(lab: swarm.Lab) -> list[dict[str, str]]:
            removed.append(pool.submit(swarm.down, "third"))
            time.sleep(0.2)  # time enough for the other one, if it did not have to wait
            assert engines.labs() == ["third"]
            return [{"name": "node1", "state": "ready"}]

        monkeypatch.setattr(membership, "node_rows", rows)
        made = up()
        assert [down.result() for down in removed] == [True]
    assert made.status["nodes"] == [{"name": "node1", "state": "ready"}]
    assert engines.labs() == []


def test_what_a_killed_up_has_left_is_removed_by_the_next(fake: FakeEngine, tmp_path: Path) -> None:
    fake.running["third"] = SwarmSpec.of("26.1", 2, 1)  # half made
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "third.lock").write_text("making 4194304\n")
    with pytest.raises(EngineError, match="process 4194304 was killed while it made lab 'third'"):
        swarm.get("third")
    removed: list[str] = []
    remove = fake.remove
    fake.remove = lambda lab: removed.append(lab) or remove(lab)  # type: ignore[method-assign]
    try:
        assert list(up().lab.nodes) == ["node1", "node2"]
    finally:
        del fake.remove
    assert removed == ["third"]
    assert not (tmp_path / "labs").exists()


def test_tokens_that_cannot_be_renewed_stay_and_the_lab_is_whole(
    fake: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def refuse() -> dict[str, Any]:
        tries.append(1)
        raise DaemonError("node1", 500, "rpc error: code = DeadlineExceeded")

    api = SimpleNamespace(inspect_swarm=refuse)
    node = SimpleNamespace(docker=SimpleNamespace(api=api))
    with caplog.at_level("INFO"):
        membership.renew_tokens(node)  # type: ignore[arg-type]
    assert len(tries) == 3
    assert "the join tokens are not renewed" in caplog.text


def test_a_reset_asks_nobody_what_the_lab_was(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    up()

    def silent(*_: object) -> swarm.Lab:
        raise TimeoutError

    with monkeypatch.context() as silence:
        silence.setattr(nodes, "lab_on", silent)
        with pytest.raises(EngineError, match="does not answer") as caught:
            swarm.get("third")
        assert caught.value.hint == "labkit reset --lab third"
        with pytest.raises(TimeoutError):  # only when the new one is looked at
            swarm.reset("third", progress=Progress())
    assert fake.running == {}


def test_its_crash_is_told_and_checkpoints_are_refused(fake: FakeEngine) -> None:
    with pytest.raises(EngineError, match="it fell over"):
        swarm.get("crashed")
    up()
    with pytest.raises(EngineError, match="nothing else can be kept"):
        engines.checkpoints("third")


def test_an_unknown_engine_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match="auto, docker, hosts, vm"):
        engines.choose("nothing")
