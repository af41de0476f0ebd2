"""Record a lab at its transport, replay the record, and get the same without the lab."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import labkit
from labkit import paths, swarm
from labkit.authoring import runner
from labkit.errors import CommandFailed, EngineError, NotInEvidence, SwarmError, UsageError, WaitTimeout
from labkit.evidence import cells, reader, writer
from labkit.evidence import files as evidence
from labkit.evidence import replayed as replay
from labkit.swarm import lifecycle, membership
from labkit.transport.base import DaemonError
from tests.unit.fakes import Toy, as_json


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test replays what another one has opened."""
    for name in ("LABKIT_REPLAY", "LABKIT_EVIDENCE", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    writer.writer.cache_clear()
    yield
    replay.end()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "toy.evidence.jsonl"


@pytest.fixture
def toy(file: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy swarm that `labkit.attach()` finds, and keeps evidence of."""
    made = Toy()
    monkeypatch.setattr(lifecycle, "find", lambda _: made.lab)
    monkeypatch.setenv("LABKIT_EVIDENCE", str(file))
    return made


def replayed(file: Path, monkeypatch: pytest.MonkeyPatch) -> swarm.Lab:
    """The same lab without a swarm, as in another process."""
    monkeypatch.setattr(lifecycle, "find", lambda _: pytest.fail("a replay looked for a swarm"))
    monkeypatch.setenv("LABKIT_REPLAY", str(file))
    replay.end()
    return labkit.attach()


@contextlib.contextmanager
def cell(text: str, run: int, identity: str = "") -> Iterator[None]:
    """Everything in here is asked by one run of a cell."""
    watch = cells._watch()
    watch.cell = cells.Cell(run, identity, text)
    try:
        yield
    finally:
        watch.cell = cells._NONE


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


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


def ask(lab: swarm.Lab) -> str:
    return lab.manager.run("curl http://hello").text.strip()


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
    live = fail(labkit.attach())
    assert live[-1] == "node1 no longer answers: the stream to it has ended"
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
        membership.join(lab.manager, lab.node("node2"), "Worker")
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


# --- who keeps evidence, and where ---------------------------------------------------------------


def test_nothing_is_kept_unasked(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LABKIT_EVIDENCE")
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "toy.ipynb"))  # inherited, but no kernel
    (tmp_path / "toy.ipynb").write_text("{}")
    ask(labkit.attach())
    assert not file.exists()


def test_a_kernel_keeps_it_beside_its_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = tmp_path / "03_reach_a_container.ipynb"
    notebook.write_text("{}")
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    monkeypatch.setattr(cells, "_shell", lambda: type("Shell", (), {"kernel": None}))
    assert evidence.target() == tmp_path / "03_reach_a_container.evidence.jsonl"
    monkeypatch.setenv("LABKIT_EVIDENCE", str(tmp_path / "other"))
    assert evidence.target() == tmp_path / "other"


def test_a_folder_that_cannot_be_written_does_not_stop_the_lab(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("LABKIT_EVIDENCE", str(tmp_path / "none" / "x"))
    assert ask(labkit.attach()) == "answer 1"
    assert "No evidence is kept" in capsys.readouterr().out


def test_without_an_engine_the_recording_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        raise EngineError("no engine", hint="labkit doctor")

    monkeypatch.setattr(lifecycle, "find", none)
    with pytest.raises(EngineError, match=r"recorded answers: labkit.attach\(replay=True\)"):
        labkit.attach()
    with pytest.raises(UsageError, match="which recording"):
        labkit.attach(replay=True)


def test_evidence_of_the_kit_goes_by_the_notebooks_name(
    toy: Toy, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert ask(labkit.attach()) == "answer 1"
    monkeypatch.delenv("LABKIT_EVIDENCE")
    kept = tmp_path / "labs" / "evidence"
    kept.mkdir(parents=True)
    evidence.pack(file, kept / "03_reach_a_container.evidence.jsonl.gz")
    monkeypatch.setattr(paths, "EVIDENCE", kept)
    monkeypatch.setattr(cells, "notebook", lambda: Path("03_reach_a_container.ipynb"))
    assert ask(labkit.attach(replay=True)) == "answer 1"
    monkeypatch.setenv("LABKIT_REPLAY", str(kept))
    assert ask(labkit.attach()) == "answer 1"
    monkeypatch.setattr(cells, "notebook", lambda: Path("04_join.ipynb"))
    with pytest.raises(UsageError, match="holds no evidence of 04_join"):
        labkit.attach()
    monkeypatch.delenv("LABKIT_REPLAY")
    with pytest.raises(UsageError, match="holds no evidence of 04_join"):
        labkit.attach(replay=True)


# --- in a notebook -------------------------------------------------------------------------------

NOTEBOOK = """\
# Reach a toy

```{code-cell}
import labkit
from labkit.swarm import lifecycle
from labkit.transport.base import DaemonError
from tests.unit.fakes import Toy, as_json
lifecycle.find = lambda _: Toy().lab
lab, you = labkit.attach(), labkit.variant()
lab.service("hello", replicas=2)
```

```{code-cell}
seen = lab.manager.run("curl http://hello")
seen
```

```{code-cell}
seen = lab.manager.run("curl http://hello")
seen
```

```{code-cell}
:tags: [check:seen, points:1]
assert seen.text == "answer 2\\n"
assert you.learner == "ada"
```
"""


def test_a_notebook_is_recorded_by_its_cells_and_replayed(tmp_path: Path) -> None:
    source = tmp_path / "03_reach_a_container.md"
    source.write_text(NOTEBOOK)
    env = {"PYTHONPATH": str(paths.REPOSITORY), "LABKIT_LEARNER": "ada"}
    (live,) = runner.run_labs([source], workdir=tmp_path / "live", env=env, timeout=60)
    assert (live.error, [c.status for c in live.checks]) == (None, ["pass"])
    file = tmp_path / "live" / "03_reach_a_container.evidence.jsonl"
    told = [(row["run"], row["argv"][0]) for row in rows(file) if row["kind"] == "command"]
    assert told == [(1, "docker"), (2, "curl"), (3, "curl")]
    assert rows(file)[0]["run"] == 1
    env["LABKIT_LEARNER"] = "bob"
    (again,) = runner.run_labs(
        [source], workdir=tmp_path / "again", env=env, timeout=60, replay=tmp_path / "live"
    )
    assert (again.error, [c.status for c in again.checks]) == (None, ["pass"])
    text = again.notebook_path.read_text()
    assert text.count("[recorded ") > 2
    assert "answer 2" in text
    assert not (tmp_path / "again" / file.name).exists()


def test_a_graders_kernel_knows_the_cells_by_the_notebooks_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that was changed after its run is still the same cell."""
    texts = [("a", "ask()  # changed"), ("b", "ask()"), ("c", "ask()")]
    code = [{"cell_type": "code", "id": name, "source": [text]} for name, text in texts]
    path = tmp_path / "03_reach_a_container.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "x"}, *code]}))
    monkeypatch.setenv("LABKIT_NOTEBOOK", str(path))
    shell = SimpleNamespace(
        kernel=None,
        history_manager=SimpleNamespace(input_hist_raw=["", "ask()  # changed"]),
        events=SimpleNamespace(register=lambda *_: None),
    )
    monkeypatch.setattr(cells, "_shell", lambda: shell)
    watch = cells._Watch()
    assert (watch.cell.run, watch.cell.id) == (1, "a")
    for number, expected in ((2, "b"), (3, "c"), (4, "c")):
        watch._begins(SimpleNamespace(raw_cell="ask()", cell_id=None))
        shell.history_manager.input_hist_raw.append("ask()")
        assert (watch.cell.run, watch.cell.id) == (number, expected)
    assert cells.notebook() == path
    path.write_text("no notebook")
    assert cells._Watch().cell.id == ""


def test_a_front_end_that_names_its_cells_is_heard(tmp_path: Path) -> None:
    """As JupyterLab asks: the cell's id is in the metadata of each request, the first one too."""
    from jupyter_client.manager import KernelManager

    notebook = tmp_path / "03_reach_a_container.ipynb"
    notebook.write_text("{}")
    env = {**os.environ, "PYTHONPATH": str(paths.REPOSITORY), "JPY_SESSION_NAME": str(notebook)}
    manager = KernelManager()
    manager.start_kernel(env=env, extra_arguments=["--IPKernelApp.log_level=ERROR"])
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        code = "from labkit.evidence import cells, files as evidence; now = cells.now()"
        code += "; told = now.run, now.id, now.text, str(evidence.target())"
        for run, identity in ((1, "03-00"), (2, "03-01")):
            content = {"code": code, "user_expressions": {"told": "told"}, "silent": False}
            content |= {"store_history": True, "allow_stdin": False, "stop_on_error": True}
            message = client.session.msg("execute_request", content)
            message["metadata"] = {"cellId": identity}
            client.shell_channel.send(message)
            asked = message["header"]["msg_id"]
            reply = client.get_shell_msg(timeout=60)
            while reply["parent_header"]["msg_id"] != asked:  # late, of wait_for_ready
                reply = client.get_shell_msg(timeout=60)
            told = reply["content"]["user_expressions"]["told"]["data"]["text/plain"]
            kept = str(evidence.beside(notebook))
            assert ast.literal_eval(told) == (run, identity, code, kept)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_threads_write_whole_lines(toy: Toy, file: Path) -> None:
    lab = labkit.attach()
    threads = [threading.Thread(target=ask, args=(lab,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = reader.read(file)
    assert not read.broken
    assert sum(line.kind == "command" for line in read.lines) == 20
