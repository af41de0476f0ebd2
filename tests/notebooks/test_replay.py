"""Record a lab at its transport, replay the record, and get the same without the lab."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

import labkit
from labkit import paths, swarm
from labkit.authoring import release, runner
from labkit.errors import CommandFailed, NotInEvidence, SwarmError, WaitTimeout
from labkit.evidence import replayed as replay
from labkit.evidence import writer
from labkit.nbgrader_cells import Role, role_of
from labkit.swarm import membership
from labkit.transport.base import DaemonError
from tests.notebooks.records import ask, cell, replayed, rows
from tests.unit.fakes import Toy, as_json

pytestmark = pytest.mark.usefixtures("alone")


# --- the same again ------------------------------------------------------------------------------


def use(lab: swarm.Lab) -> list[Any]:
    """What a notebook might do; returns all that it sees."""
    lab.keep_only("hello")
    made = lab.service("hello", replicas=3)
    tasks = lab.tasks("hello")
    kept = lab.service("hello", replicas=3)
    node = lab.node("node2")
    curls = [node.run("curl -sS http://127.0.0.1") for _ in range(3)]
    many = lab.run_all([(task.place, "curl -m 5 http://10.0.0.1") for task in tasks])
    with tasks[0].sandbox.watch("tcpdump -i any") as wire:
        tasks[0].run("curl -sS http://10.0.0.9")
    box = node.netns("ingress_sbox").run("ip neigh")
    failed = node.run("fails")
    events = list(node.docker.api.events(since=1, until=2, decode=True))
    captures = [made, kept, *curls, *many, wire.result(), box, failed]
    named = [(t.name, t.node.name, t.container, t.pid, t.addresses) for t in tasks]
    times = [(c.started, c.seconds) for c in captures]
    return [captures, named, events, times, lab.manager.full_version, lab.heartbeat_s, lab.keep_only()]


def test_a_replay_gives_the_same_without_a_swarm(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = use(labkit.attach())
    asked = [list(node.commands) + list(node.requests) for node in toy.nodes.values()]
    lab = replayed(file, monkeypatch)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    again = use(lab)
    assert again == live
    assert waits == []  # the live one waited, for tcpdump alone
    assert [list(node.commands) + list(node.requests) for node in toy.nodes.values()] == asked
    assert lab.engine.kind == "replay"
    assert lab.learner == "ada"
    assert [capture.recorded for capture in live[0]] == [False] * len(live[0])
    assert all(capture.recorded for capture in again[0])
    assert "not live]" in str(again[0][0])
    assert "not live]" in again[0][0]._repr_html_()
    assert "not live]" not in str(live[0][0])
    lab.close()


def test_it_says_that_it_is_a_replay(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labkit.attach()
    assert capsys.readouterr().out == ""
    replayed(file, monkeypatch)
    said = capsys.readouterr().out
    assert said.startswith(
        "Replay of toy.evidence.jsonl: no swarm is running. Every answer was recorded"
    )
    assert "of ada's swarm with Docker 26.1.5." in said


def test_the_variant_is_the_recorded_learners(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labkit.attach()
    monkeypatch.setenv("LABKIT_LEARNER", "bob")
    assert labkit.variant().learner == "bob"
    monkeypatch.setenv("LABKIT_REPLAY", str(file))
    assert labkit.variant().learner == "ada"  # before attach() too
    assert labkit.variant("eve").learner == "eve"


def test_a_live_lab_after_a_replay_is_live(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labkit.attach()
    monkeypatch.delenv("LABKIT_EVIDENCE")
    lab = labkit.attach(replay=file)
    assert lab.engine.kind == "replay"
    assert labkit.variant().learner == "ada"
    monkeypatch.setenv("LABKIT_LEARNER", "bob")
    assert labkit.attach().engine.kind == "vm"
    assert labkit.variant().learner == "bob"


# --- which answer --------------------------------------------------------------------------------


def test_more_looks_than_then_see_the_last_one_again(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    assert [ask(lab), ask(lab)] == ["answer 1", "answer 2"]
    again = replayed(file, monkeypatch)
    assert [ask(again) for _ in range(4)] == ["answer 1", "answer 2", "answer 2", "answer 2"]


def test_a_cells_last_run_counts(toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = labkit.attach()
    for run, text in enumerate(["a = ask()", "b = ask()", "a = ask()"], 1):
        with cell(text, run, identity=text[0]):
            ask(lab)
    again = replayed(file, monkeypatch)
    with cell("b = ask()", 1):
        assert ask(again) == "answer 2"  # whatever ran before it, or not
    with cell("a = ask()", 2):
        assert ask(again) == "answer 3"


@pytest.mark.parametrize("named", [True, False])
def test_cells_of_the_same_text_are_told_apart(
    named: bool, toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    runs = [("ask()", "x"), ("ask()", "y"), *([("ask()", "x")] if named else [])]
    for run, (text, identity) in enumerate(runs, 1):
        with cell(text, run, identity if named else ""):
            ask(lab)
    first = "answer 3" if named else "answer 1"
    again = replayed(file, monkeypatch)
    for expected in (first, "answer 2"):  # without ids their order tells
        with cell("ask()", 1):
            assert ask(again) == expected
    if named:
        with cell("ask()", 3, "y"):
            assert ask(again) == "answer 2"
        with cell("ask()  # another comment", 4, "y"):
            assert ask(again) == "answer 2"


def test_a_changed_cell_gets_what_was_true_at_this_moment(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    for run in (1, 2, 3):
        with cell(f"cell {run}", run):
            ask(lab)
            lab.manager.run(f"echo {run}")
    again = replayed(file, monkeypatch)
    with cell("cell 2", 1):
        again.manager.run("echo 2")
    with cell("cell 2, changed", 2):
        assert ask(again) == "answer 2"
        assert ask(again) == "answer 3"


def test_a_cell_of_ones_own_follows_the_run_that_it_is_like(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a look shows after an act is what it showed after that act then, not before it."""
    lab = labkit.attach()
    for run, text in enumerate(["echo 1", "", "echo 2", "", "echo 3", ""], 1):
        with cell(f"cell {run}", run):
            lab.manager.run(text) if text else ask(lab)  # an act, and in the next cell a look
    again = replayed(file, monkeypatch)
    with cell("cell 2", 1):
        assert ask(again) == "answer 1"
    with cell("act, and look", 2):
        again.manager.run("echo 2")
        assert ask(again) == "answer 2"
    with cell("look alone", 3):
        assert ask(again) == "answer 2"


def test_another_text_in_a_cell_is_answered_by_what_was_run_there(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    for run in (1, 2, 3):
        with cell(f"ask()  # solution {run}", run, f"00-answer-{run}"):
            ask(lab)
        with cell(f"look {run}", run + 10, f"00-look-{run}"):
            lab.manager.run("ip neigh")
            lab.manager.run(f"echo {run}")
    again = replayed(file, monkeypatch)
    with cell("ask()", 1, "00-answer-2"):
        assert ask(again) == "answer 2"
        looked = again.manager.run("ip neigh")
    with cell("look 2", 2, "00-look-2"):
        assert again.manager.run("ip neigh").started == looked.started  # as it was next, not before


def test_no_thread_sees_what_was_before_its_own_act(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads make a service each and list them all, as the bench for faults does."""
    names = ["asker", "front", "back", "door"]

    def make(lab: swarm.Lab) -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: lab.service(name), names))
            return sorted(task.name for found in pool.map(lab.tasks, names) for task in found)

    live = make(labkit.attach())
    for _ in range(5):
        assert make(replayed(file, monkeypatch)) == live


def test_a_slow_command_is_done_when_it_was(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(lab: swarm.Lab) -> list[str]:
        running = lab.node("node2").place.start("slow")
        seen = []
        while not running.done():
            seen.append(ask(lab))
            lab.pause(0.1)
        return [*seen, running.result().text]

    live = looks(labkit.attach())
    assert len(live) > 3
    assert looks(replayed(file, monkeypatch)) == live


def test_what_was_not_true_then_never_becomes_true(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(labkit.attach())
    again = replayed(file, monkeypatch)
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match="waited 300 s for a miracle"):
        again.wait_for("a miracle", lambda: (ask(again) == "answer 2", "none"))
    assert time.monotonic() - began < 10


# --- what is not there ---------------------------------------------------------------------------


def test_a_command_that_is_not_there_says_so(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    with cell("seen = ask()", 1):
        lab.manager.run("curl -sS http://10.0.0.7:3000")
        lab.node("node2").run("ip route")
    again = replayed(file, monkeypatch)
    with pytest.raises(NotInEvidence) as caught, cell('# why?\nneigh = a.run("ip neigh")', 2):
        again.manager.run("curl -sS http://10.0.0.8:3000")
    told = str(caught.value)
    assert "toy.evidence.jsonl has no answer to `curl -sS http://10.0.0.8:3000` on node1" in told
    assert 'asked by the cell that begins `neigh = a.run("ip neigh")`' in told
    assert "that cell was not run then, or was changed since" in told
    assert "what was asked there: `curl -sS http://10.0.0.7:3000`" in told
    assert "Next step: only what was run on a swarm has an answer" in told
    assert caught.value._render_traceback_() == [f"NotInEvidence: {told}"]
    with pytest.raises(NotInEvidence, match="the same was asked on node2"):
        again.manager.run("ip route")
    with pytest.raises(NotInEvidence, match="GET /secrets of the engine on node1"):
        again.manager.docker.api.secrets()
    with pytest.raises(NotInEvidence, match="of the engine on the machine"):
        again.engine.client.containers.list()


def test_failures_are_replayed_as_failures(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lab: swarm.Lab) -> list[str]:
        told = []
        with pytest.raises(CommandFailed) as first:
            lab.manager.run("fails").check()
        with pytest.raises(SwarmError) as second, lab.manager.place.watch("fails"):
            pass
        with pytest.raises(DaemonError, match="answered 404") as third:
            lab.manager.docker.api.inspect_network("none")
        told += [str(caught.value) for caught in (first, second, third)]
        with pytest.raises(SwarmError) as fourth:
            lab.manager.run("hangs up")
        return [*told, str(fourth.value.args[0])]

    def hang_up(argv: list[str]) -> str | dict[str, Any]:
        if argv[0] == "hangs":
            raise ValueError
        return toy.run(argv)

    toy.nodes["node1"].run = hang_up
    toy.nodes["node1"]._agent = _ending(toy.nodes["node1"]._agent)  # type: ignore[method-assign]
    lab = labkit.attach()
    live = fail(lab)
    assert live[-1] == "node1 no longer answers: the stream to it has ended"
    assert lab.manager.run("ip neigh").ok  # over another stream
    assert fail(replayed(file, monkeypatch)) == live


def _ending(serve: Any) -> Any:
    def ends(link: Any) -> None:
        with contextlib.suppress(ValueError):
            serve(link)
        link.shutdown(2)

    return ends


def test_long_answers_are_left_out_and_said_so(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writer, replay):
        monkeypatch.setattr(module, "MAX_TEXT", 50)
    lab = labkit.attach()
    long = lab.manager.run(["echo", "x" * 60])
    assert len(long.text) > 60
    row = rows(file)[-1]
    assert row["stdout"] == ""
    assert row["cut"]["stdout"]["characters"] == len(long.text)
    with pytest.raises(NotInEvidence, match=r"the stdout of .* had more than 50 characters"):
        replayed(file, monkeypatch).manager.run(["echo", "x" * 60])


def test_endless_streams_work_and_are_not_kept(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = labkit.attach()
    assert len(list(lab.manager.docker.api.events(decode=True))) == 2
    assert "without an end" in rows(file)[-1]["error"]
    with pytest.raises(Exception, match="without an end"):
        replayed(file, monkeypatch).manager.docker.api.events(decode=True)


def test_join_tokens_are_not_kept(toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["docker", "swarm", "join", "--token", "SWMTKN-1-0abc-1def"]
    live = labkit.attach().manager.run(argv)
    assert "SWMTKN-1-0abc" in live.text
    assert "0abc-1def" not in file.read_text()
    assert "SWMTKN-…" in replayed(file, monkeypatch).manager.run(argv).text


def test_a_node_joins_again_on_a_replay(toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that it joins with is blotted out by then."""
    token = "SWMTKN-1-0abc-1def"

    def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.endswith("/swarm"):
            return as_json({"JoinTokens": {"Worker": token}})
        return as_json({}) if path.endswith("/join") else toy.api(method, path, body)

    for node in toy.nodes.values():
        node.api = api

    def join(lab: swarm.Lab) -> bool:
        membership.join(lab, lab.node("node2"), "Worker")
        return True

    assert join(labkit.attach())
    assert token not in file.read_text()
    assert join(replayed(file, monkeypatch))


def test_bytes_that_are_no_text_are_kept(toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytes(range(256))
    frame = b"\x01\x00\x00\x00" + len(written).to_bytes(4) + written

    def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.endswith("/x/json"):
            return as_json({"Config": {"Tty": False}})
        return (200, "raw", frame) if "/x/logs" in path else toy.api(method, path, body)

    toy.nodes["node1"].api = api
    assert labkit.attach().manager.docker.api.logs("x") == written
    assert "base64" in [row.get("encoding") for row in rows(file)]
    assert replayed(file, monkeypatch).manager.docker.api.logs("x") == written


@pytest.mark.parametrize("lab", ["05", "07", "08"])
def test_a_lab_passes_on_its_recording_in_words_of_ones_own(lab: str, tmp_path: Path) -> None:
    """What a learner types is no text of the recording: the cell's id leads to what was run there."""
    (source,) = release.find_labs(paths.SOURCES, [lab])
    notebook = release.read_source(source)
    for one in notebook.cells:
        if role_of(one) is Role.ANSWER:
            one.source = f"# in my own words\n{one.source}"
    built = tmp_path / "built" / f"{source.stem}.ipynb"
    built.parent.mkdir()
    nbformat.write(notebook, built)  # type: ignore[no-untyped-call]
    (result,) = runner.run_labs([built], workdir=tmp_path, env={}, timeout=300, replay=paths.EVIDENCE)
    assert not result.error
    assert not [check.message for check in result.checks if check.status != "pass"]
