"""Runner: a lab's outcomes, what stops it, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from labkit.authoring import markup, release, runner
from labkit.authoring.report import write_report
from labkit.authoring.runner import CheckResult, LabResult
from labkit.outcomes import Outcome

HEAD = """\
# Reach a container

```{code-cell}
from labkit import checks
from labkit.errors import CouldNotRun
```
"""


def code(source: str, tags: str = "") -> str:
    header = f":tags: [{tags}]\n" if tags else ""
    return f"```{{code-cell}}\n{header}{source}\n```\n"


def answer(name: str, value: str) -> str:
    return code(f"### BEGIN SOLUTION\n{name} = {value}\n### END SOLUTION", f"answer:{name}")


def check(name: str, source: str) -> str:
    return code(source, f"check:{name}, points:1")


def write(directory: Path, body: str, name: str = "03_reach_a_container") -> Path:
    path = directory / f"{name}.md"
    path.write_text(HEAD + body)
    return path


def run(path: Path, workdir: Path, timeout: float = 60) -> LabResult:
    return runner.run_labs([path], workdir=workdir, env={}, timeout=timeout)[0]


def statuses(result: LabResult) -> dict[str, str]:
    return {check.id: check.status for check in result.checks}


GRADED = (
    answer("cause", '"firewall"')
    + check("cause", 'checks.one_of(cause, ["arp", "firewall"], name="the cause")')
    + answer("hops", "2")
    + code("double = hops")
    + check("hops", 'checks.equals(hops, 2, name="the hops", node="node-1")')
    + check("mended", "checks.true(hops is not ..., 'the swarm is mended')")
    + code("end = True")
)


def test_source_scores_full_and_release_zero(tmp_path: Path) -> None:
    source = write(tmp_path, GRADED)
    (target,) = release.release(tmp_path, tmp_path / "release")
    full = run(source, tmp_path / "full")
    zero = run(target, tmp_path / "zero")

    assert full.error is None
    assert full.title == "Reach a container"
    assert [c.status for c in full.checks] == ["pass"] * 3
    assert full.checks[1] == CheckResult("hops", Outcome.PASS, "The hops on node-1: 2, as you said.")
    # Run All reaches the end of what a learner opens, without one point.
    assert zero.error is None
    assert statuses(zero) == {"cause": "unanswered", "hops": "unanswered", "mended": "fail"}
    executed = nbformat.read(zero.notebook_path, as_version=4)
    assert executed.cells[-1].source == "end = True"
    assert executed.cells[-1].execution_count is not None
    assert 0 < full.waited < full.seconds


def test_four_outcomes_and_an_error_in_a_check(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        check("passes", "checks.true(True, 'All is well')")
        + check("fails", 'checks.equals(3, 2, name="the hops", node="node-1")')
        + check("empty", "checks.answered(...)")
        + check("blind", "raise CouldNotRun('no evidence', hint='run it')")
        + check("broken", "no_such_name"),
    )
    result = run(source, tmp_path / "work")
    assert result.error is None
    assert [(c.id, c.status, c.message) for c in result.checks] == [
        ("passes", "pass", "All is well."),
        ("fails", "fail", "The hops on node-1: you said 3, measured 2."),
        (
            "empty",
            "unanswered",
            "The answer is not answered yet: put your answer where `...` stands.",
        ),
        ("blind", "could not run", "no evidence\nNext step: run it"),
        (
            "broken",
            "could not run",
            "The check ended in NameError: name 'no_such_name' is not defined",
        ),
    ]


def test_a_control_leaves_its_picture(tmp_path: Path) -> None:
    measure = "import pandas as pd\ndef measure(payload):\n    return pd.DataFrame()"
    shown = "from labkit import panel, plots\n"
    shown += "panel.explore(measure, plots.wire_sizes, measure(payload=0), payload=range(0, 1421))"
    result = run(write(tmp_path, code(measure) + code(shown)), tmp_path / "work")
    assert result.error is None
    executed = nbformat.read(result.notebook_path, as_version=4)
    assert "widgets" not in executed.metadata
    (output,) = executed.cells[-1].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    write_report([result], tmp_path / "report", facts={}, statements={})
    page = (tmp_path / "report" / f"{result.id}.html").read_text()
    assert "wire_sizes(measure(payload=0))" in page
    assert re.search('<img alt="[^"]*no rows[^"]*" src="data:image/png;base64,', page)
    assert "<script" not in page


def test_an_error_elsewhere_stops_the_lab_and_keeps_what_ran(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        check("early", "checks.true(True, 'yes')")
        + code("print('seen')")
        + code("raise ValueError('first line\\nlast line')")
        + check("late", "checks.true(True, 'yes')")
        + code("open('never', 'w')"),
    )
    result = run(source, tmp_path / "work")
    assert result.error is not None
    assert result.error.startswith("cell 5 (`raise ValueError(")
    assert result.error.endswith("ended in ValueError: first line last line")
    assert statuses(result) == {"early": "pass", "late": "could not run"}
    assert result.error in result.checks[1].message
    executed = nbformat.read(result.notebook_path, as_version=4)
    assert executed.cells[3].outputs[0].text == "seen\n"
    assert executed.cells[4].outputs[0].ename == "ValueError"
    assert not (tmp_path / "work" / "never").exists()


def test_a_cell_meant_to_raise_does_not_stop_the_lab(tmp_path: Path) -> None:
    source = write(
        tmp_path, code("1 / 0", "raises-exception") + check("late", "checks.true(True, 'yes')")
    )
    result = run(source, tmp_path / "work")
    assert (result.error, statuses(result)) == (None, {"late": "pass"})


def test_a_failing_guard_stops_the_source(tmp_path: Path) -> None:
    result = run(write(tmp_path, code("assert 1 == 2", "remove-cell, test")), tmp_path / "work")
    assert result.error is not None
    assert "AssertionError" in result.error


def test_timeout_of_a_check_and_of_another_cell(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        code("import time")
        + check("slow", "time.sleep(60)")
        + check("next", "checks.true(True, 'yes')")
        + code("time.sleep(60)")
        + check("late", "checks.true(True, 'yes')"),
    )
    began = time.monotonic()
    result = run(source, tmp_path / "work", timeout=2)
    assert time.monotonic() - began < 30
    assert statuses(result) == {"slow": "could not run", "next": "pass", "late": "could not run"}
    assert "longer than 2 s" in result.checks[0].message
    assert result.error is not None
    assert "longer than 2 s" in result.error


def test_a_dead_kernel_is_a_reason(tmp_path: Path) -> None:
    source = write(tmp_path, code("import os; os._exit(1)") + check("late", "checks.true(True, 'yes')"))
    result = run(source, tmp_path / "work")
    assert result.error is not None
    assert "the kernel died" in result.error
    assert statuses(result) == {"late": "could not run"}
    assert result.notebook_path.exists()


def test_kernel_is_this_interpreter_in_workdir_with_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    path = write(
        tmp_path,
        "```{code-cell}\nimport sys, os\nprint(sys.executable, os.getcwd(), os.environ['L'])\n```",
    )
    workdir = tmp_path / "work"
    seen: list[tuple[str, int, int]] = []
    (result,) = runner.run_labs(
        [path],
        workdir=workdir,
        env={"L": "lab-7"},
        timeout=60,
        on_progress=lambda *now: seen.append(now),
    )
    assert result.error is None
    printed = nbformat.read(result.notebook_path, as_version=4).cells[-1].outputs[0].text
    assert printed.split() == [sys.executable, str(workdir), "lab-7"]
    assert seen == [("03_reach_a_container", done, 3) for done in range(4)]


def test_bad_markup_is_refused_before_anything_runs(tmp_path: Path) -> None:
    good = write(tmp_path, code("1"), "01_build_a_swarm")
    bad = write(tmp_path, code("1", "answer:x"), "02_follow_a_request")
    with pytest.raises(markup.MarkupError):
        runner.run_labs([good, bad], workdir=tmp_path / "work", env={}, timeout=60)
    assert not (tmp_path / "work").exists()


def is_kernel(process: psutil.Process) -> bool:
    # Importing libraries starts processes too, which end at once.
    with suppress(psutil.NoSuchProcess):
        return "ipykernel_launcher" in process.cmdline()
    return False


STARTING = {"as a kernel is born": 0.0, "while it starts": 0.3}


@pytest.mark.parametrize("when", ["as a kernel is born", "while it starts", "in a cell", "twice"])
def test_ctrl_c_leaves_no_kernel(tmp_path: Path, when: str) -> None:
    source = write(tmp_path, code("import time; open('ready', 'w').close()") + code("time.sleep(120)"))
    program = (
        # What is started in the background of a script is born deaf to Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys; from pathlib import Path; from labkit.authoring import runner;"
        "runner.run_labs([Path(sys.argv[1])], workdir=Path(sys.argv[2]), env={}, timeout=300)"
    )
    workdir = tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(source), str(workdir)], stderr=subprocess.PIPE
    )
    me = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    kernels: list[psutil.Process] = []
    while time.monotonic() < deadline:
        kernels = [child for child in me.children() if is_kernel(child)]
        if kernels and (when in STARTING or (workdir / "ready").exists()):
            break
        time.sleep(0.01)
    assert kernels
    time.sleep(STARTING.get(when, 0))
    process.send_signal(signal.SIGINT)
    if when == "twice":
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    assert process.returncode in (1, -signal.SIGINT)
    _, alive = psutil.wait_procs(kernels, timeout=5)
    assert alive == []
    assert (workdir / "03_reach_a_container.ipynb").exists(), stderr.decode()


def test_ctrl_c_that_asyncio_raises_once_more_loses_nothing(tmp_path: Path) -> None:
    """It does so for each task that waited: not while the kernel is taken down and all is written."""
    source, workdir = write(tmp_path, code("1") + code("2")), tmp_path / "work"
    program = """
import sys
from pathlib import Path
import psutil
from jupyter_core.utils import ensure_event_loop
from labkit.authoring import runner

async def waiting():
    raise KeyboardInterrupt

def stop(lab, done, cells):
    if done:
        left.extend(ensure_event_loop().create_task(waiting()) for _ in range(3))
        raise KeyboardInterrupt

left = []
source, workdir = map(Path, sys.argv[1:])
try:
    runner.run_labs([source], workdir=workdir, env={}, timeout=60, on_progress=stop)
except KeyboardInterrupt:
    print("left:", [child.cmdline() for child in psutil.Process().children()])
"""
    argv = [sys.executable, "-c", program, str(source), str(workdir)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "left: []\n", done.stderr
    assert (workdir / "03_reach_a_container.ipynb").exists()


def test_a_killed_run_leaves_no_kernel_and_no_connection_file(tmp_path: Path) -> None:
    source = write(tmp_path, code("import time; open('ready', 'w').close()") + code("time.sleep(120)"))
    program = (
        "import sys; from pathlib import Path; from labkit.authoring import runner;"
        "runner.run_labs([Path(sys.argv[1])], workdir=Path(sys.argv[2]), env={}, timeout=300)"
    )
    workdir, temporary, jupyter = (tmp_path / name for name in ("work", "tmp", "jupyter"))
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary), "JUPYTER_RUNTIME_DIR": str(jupyter)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(source), str(workdir)], env=env
    ) as killed:
        deadline = time.monotonic() + 60
        while not (workdir / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kernels = [p for p in psutil.Process(killed.pid).children() if is_kernel(p)]
        killed.kill()
    _, alive = psutil.wait_procs(kernels, timeout=10)
    assert (len(kernels), alive) == (1, [])
    assert not jupyter.exists() or list(jupyter.iterdir()) == []
    (left,) = temporary.iterdir()
    os.utime(left, (0, 0))  # as if time had passed
    sweep = "from labkit import files; files.remove_scratch()"
    subprocess.run([sys.executable, "-c", sweep], env=env, check=True)
    assert list(temporary.iterdir()) == []


def test_json_counts_everything_but_pass_as_failed() -> None:
    checks = tuple(CheckResult(f"c{n}", status, "s") for n, status in enumerate(Outcome))
    path = Path("x.ipynb")
    results = [
        LabResult("01_a", "A", 12.345, 2.0, checks, None, path),
        LabResult("02_b", "B", 1.0, 0.5, (), "cell 1 (`x`) ended in NameError: x", path),
    ]
    document = runner.to_json(results)
    assert json.loads(json.dumps(document)) == document
    assert (document["passed"], document["failed"]) == (1, 3)
    first, second = document["labs"]
    assert first["checks"][3] == {"id": "c3", "status": "could not run", "message": "s"}
    assert (first["id"], first["title"], first["seconds"]) == ("01_a", "A", 12.3)
    assert "error" not in first
    assert second["error"] == results[1].error


def test_every_plot_is_shown(tmp_path: Path) -> None:
    """The first one loads the notebook's backend, inside the style of labkit."""
    made = 'import pandas as pd\nfrom labkit import plots\ndf = pd.DataFrame({"source": []})'
    plots = [code(f"plots.reach(df, title='picture {n}');") for n in range(3)]
    result = run(write(tmp_path, code(made) + "\n".join(plots)), tmp_path / "work")
    cells = nbformat.read(result.notebook_path, as_version=4).cells  # type: ignore[no-untyped-call]
    shown = [[o for o in c.get("outputs", ()) if "image/png" in o.get("data", {})] for c in cells]
    assert [len(pictures) for pictures in shown[-3:]] == [1, 1, 1]
