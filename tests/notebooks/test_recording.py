"""Who keeps evidence, where it is, and under which cell of a notebook."""

from __future__ import annotations

import ast
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import labkit
from labkit import paths
from labkit.authoring import runner
from labkit.errors import EngineError, UsageError
from labkit.evidence import cells, reader
from labkit.evidence import files as evidence
from labkit.swarm import lifecycle
from tests.notebooks.records import ask, rows
from tests.unit.fakes import Toy

pytestmark = pytest.mark.usefixtures("alone")


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


def test_a_kernel_whose_notebook_was_renamed_says_that_it_keeps_none(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "toy.ipynb"))
    monkeypatch.setattr(cells, "_shell", lambda: type("Shell", (), {"kernel": None}))
    monkeypatch.setattr(cells, "now", lambda: cells.Cell(1, "", "labkit.attach()"))
    labkit.attach()  # LABKIT_EVIDENCE names a file, as for `labkit run`
    assert capsys.readouterr().out == ""
    monkeypatch.delenv("LABKIT_EVIDENCE")
    labkit.attach()
    assert "toy.ipynb is not there any more" in capsys.readouterr().out
    (tmp_path / "toy.ipynb").write_text("{}")
    labkit.attach()
    assert capsys.readouterr().out == ""


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
