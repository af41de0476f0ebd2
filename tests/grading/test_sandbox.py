"""The sandbox: what is in it and what is not; and that grading refuses to do without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import psutil
import pytest

import labkit
from labkit import paths
from labkit.grading import batch, sandbox, sandbox_main
from labkit.grading.kernel import MAX_CELL_OUTPUT, Kernel, KernelLost
from labkit.grading.sandbox import Limits, SandboxError, SandboxProvisioner
from tests.grading import course

LIMITS = Limits(cell_seconds=10, notebook_seconds=60)


def test_the_inside(tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("for the learner")
    kernel = Kernel(tmp_path, {"LABKIT_LEARNER": "ada", "HOME": "/root"}, LIMITS, sandboxed=True)
    with kernel.running():
        for code in (
            "import os, labkit; assert open('given.txt').read() == 'for the learner'",
            "open('mine.txt', 'w').write('x'); open('/tmp/mine.txt', 'w').write('x')",
            "assert os.getcwd() == os.environ['HOME'] == '/home/learner'",
            "assert os.environ['LABKIT_LEARNER'] == 'ada' == labkit.variant().learner",
            "assert [p for p in os.listdir('/proc') if p.isdigit()].__len__() <= 3",
            "assert sorted(os.listdir('/home')) == ['learner']",
            f"assert os.listdir({str(paths.REPOSITORY)!r}) and not os.path.exists("
            f"{str(paths.REPOSITORY / 'labs')!r})",
            "devices = open('/proc/net/dev').read().splitlines()[2:]; "
            "assert [line.split(':')[0].strip() for line in devices] == ['lo']",
            "import pandas, matplotlib.pyplot as plt; plt.plot([1]); plt.savefig('plot.png')",
        ):
            result = kernel.run(code)
            assert result.ok, (code, result.message)
        for code, kind in (
            ("open('given.txt', 'w')", "OSError"),
            (f"open({str(paths.REPOSITORY / 'labkit' / 'x.py')!r}, 'w')", "OSError"),
            ("open('/usr/x', 'w')", "OSError"),
            ("open('big', 'wb').write(bytes(10**8))", "OSError"),
            ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ValueError"),
            ("os.setuid(0)", "OSError"),
            ("input()", "StdinNotImplementedError"),
        ):
            assert kernel.run(code).error == kind, code
        # A namespace of its own would give back rights that the sandbox takes.
        assert kernel.run(
            "import subprocess; subprocess.run(['unshare', '-r', 'true'], check=True)"
        ).error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given.txt"]
    assert not any("given.txt" in attempt for attempt in kernel.attempts)
    assert "tried to change /usr/x, outside its folder" in kernel.attempts


def test_too_many_files_end_it(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {}, LIMITS, sandboxed=True)
    code = "for n in range(10**7): open(f'{n}', 'w').close()"
    with kernel.running(), pytest.raises(KernelLost, match="more than 2000 files"):
        kernel.run(code)


def test_output_is_kept_up_to_a_size(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {}, LIMITS, sandboxed=True)
    with kernel.running():
        result = kernel.run("print('x' * 1000)\nprint('y' * 3_000_000)\n1/0")
        assert result.error == "ZeroDivisionError"
        assert result.dropped >= 2_900_000
        assert sum(len(o.get("text", "")) for o in result.outputs) <= MAX_CELL_OUTPUT
        assert result.outputs[-1].ename == "ZeroDivisionError"
        result = kernel.run("from IPython.display import clear_output; clear_output()\n1/0")
        assert result.error == "ZeroDivisionError"


@pytest.fixture
def laid_down() -> Iterator[Path]:
    """For temporary files: pytest's own directories are where nobody may go."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


# Leaves its parents and its session behind, and does what it can to be spared.
LEAVES = """
import ctypes, os, signal, time
for parent in range(2):
    if os.fork():
        break
    os.setsid()
    for number in range(1, 65):
        if number not in (9, 19, 32, 33):
            signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG
    libc.ptrace(16, 1, 0, 0)  # PTRACE_ATTACH, to the first process, for the same
else:
    time.sleep(1000)
"""


def test_it_ends_with_a_grader_that_is_killed(tmp_path: Path, laid_down: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from labkit.grading import kernel, sandbox\n"
        "k = kernel.Kernel(Path(sys.argv[1]), {}, sandbox.Limits(), sandboxed=True)\n"
        "with k.running(): k.run(sys.argv[2]); print('up', flush=True); sys.stdin.read()\n"
    )
    grader = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), LEAVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY), "TMPDIR": str(laid_down)},
    )
    assert grader.stdout
    assert grader.stdout.readline() == b"up\n"
    inside = psutil.Process(grader.pid).children(recursive=True)
    assert len(inside) >= 4
    grader.send_signal(signal.SIGKILL)
    grader.communicate()
    _, alive = psutil.wait_procs(inside, timeout=10)
    assert alive == []


def test_nothing_is_left_after_a_notebook(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {}, LIMITS, sandboxed=True)
    before = set(psutil.Process().children(recursive=True))
    with kernel.running():
        assert kernel.run(LEAVES).ok
        inside = set(psutil.Process().children(recursive=True)) - before
        assert len(inside) >= 4
    # What has ended may still wait for the system's init to ask how.
    running = [one for one in inside if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert running == []


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    limits = Limits(cell_seconds=10, notebook_seconds=60, memory=768 * 2**20)
    kernel = Kernel(tmp_path, {}, limits, sandboxed=True)
    with kernel.running():
        result = kernel.run(
            "import os, time; held = os.urandom(2**20) * 250\n"
            "children = [os.fork() for _ in range(4) if os.getpid() == 2]\n"
            "if 0 in children: time.sleep(1.5); os._exit(0)\n"
            "for child in children: os.waitpid(child, 0)\n"
            "open('/proc/self/status').read()"
        )
        assert result.ok, result.message


def test_a_sandbox_is_tied_to_its_grader_before_it_begins() -> None:
    """Killed just when bubblewrap starts, a grader would leave it behind."""
    ask = (
        "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    )
    argv = [sys.executable, "-c", ask]
    tied = subprocess.run(
        argv, preexec_fn=sandbox.die_with(os.getpid()), capture_output=True, text=True, check=True
    )
    assert tied.stdout.split() == [str(int(signal.SIGKILL))]
    orphan = subprocess.run(argv, preexec_fn=sandbox.die_with(1), capture_output=True, check=False)
    assert (orphan.returncode, orphan.stdout) == (1, b"")


def test_ctrl_c_leaves_nothing(tmp_path: Path, laid_down: Path) -> None:
    made = course.Course(course.sources(tmp_path)[0])
    for student in ("ada", "ben", "cem"):
        folder = tmp_path / "in" / student
        folder.mkdir(parents=True)
        (folder / f"{course.LAB}.ipynb").write_text(json.dumps(made.with_code("while True: pass")))
    program = (
        "import signal, sys; from pathlib import Path; from labkit.grading import batch\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); base = Path(sys.argv[1])\n"
        "sources = sorted((base / 'labs').glob('*.md'))\n"
        "batch.grade(base / 'in', sources=sources, out=base / 'grades.csv')\n"
    )
    grader = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY), "TMPDIR": str(laid_down)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        started: list[psutil.Process] = []
        while not any(map(is_sandbox, started)) and time.monotonic() < deadline:
            started = psutil.Process(grader.pid).children(recursive=True)
            time.sleep(0.1)
        assert any(map(is_sandbox, started))
        assert any(laid_down.iterdir())
        os.killpg(grader.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, stderr = grader.communicate(timeout=30)
        assert b"KeyboardInterrupt" in stderr
        _, alive = psutil.wait_procs(started, timeout=10)
        assert alive == []
        assert list(laid_down.iterdir()) == [], stderr.decode()
    finally:
        grader.kill()


def is_sandbox(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "labkit.grading.sandbox_main" in process.cmdline()
    return False


def test_without_bubblewrap_grading_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = course.sources(tmp_path)
    monkeypatch.setattr(sandbox.shutil, "which", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(SandboxError, match="not installed") as caught:
        batch.grade(tmp_path / "in", sources=sources, out=tmp_path / "grades.csv")
    assert "apt-get install bubblewrap" in caught.value.hint
    assert caught.value.exit_code == 3
    assert not (tmp_path / "grades").exists()


def test_a_bubblewrap_that_does_not_work_is_named(
    laid_down: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = laid_down / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox, "_PATH", f"{laid_down}:{sandbox._PATH}")
    switch = laid_down / "switch"
    monkeypatch.setattr(sandbox, "_APPARMOR_SWITCH", switch)
    assert "does not work here" in sandbox.refusal()
    assert "No permissions to create new namespace" in sandbox.refusal()
    assert "apt-get install bubblewrap" in sandbox.remedy()
    switch.write_text("1\n")  # as on Ubuntu 24.04
    assert "AppArmor keeps bubblewrap from making user namespaces" in sandbox.refusal()
    assert "/etc/apparmor.d/bwrap" in sandbox.remedy()
    assert "sysctl" not in sandbox.remedy()


def test_unsafe_runs_with_all_rights_and_the_same_marks(tmp_path: Path) -> None:
    sources = course.sources(tmp_path)
    folder = tmp_path / "in" / "ada"
    folder.mkdir(parents=True)
    made = course.Course(sources[0])
    notebook = made.with_code("open('/etc/hostname').read()")
    (folder / f"{course.LAB}.ipynb").write_text(json.dumps(notebook))
    (row,) = batch.grade(
        tmp_path / "in", sources=sources, out=tmp_path / "grades.csv", limits=LIMITS, sandboxed=False
    )
    assert (row["points"], row["status"], row["findings"]) == (6, "graded", [])


def test_any_program_of_jupyter_can_ask_for_it() -> None:
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]
    group = "jupyter_client.kernel_provisioners"
    value = project["entry-points"][group]["labkit-cage"]
    assert EntryPoint("labkit-cage", value, group).load() is SandboxProvisioner


def test_the_witness_reports_the_learners_code_alone() -> None:
    reports: list[str] = []
    witness = sandbox_main.Witness(reports.append, ["/opt/python"], "/home/learner")

    def reported(filename: str, event: str, *args: object) -> list[str]:
        reports.clear()
        witness._reported.clear()
        scope: dict[str, object] = {"witness": witness, "event": event, "args": args}
        exec(compile("witness(event, args)", filename, "exec"), scope)
        return list(reports)

    cell = "/tmp/ipykernel_7/1.py"
    assert reported(cell, "open", "/etc/passwd", "r", 0) == [
        "tried to read /etc/passwd, outside its folder"
    ]
    assert reported(cell, "open", "/home/learner/x", "w", os.O_WRONLY) == []
    assert reported(cell, "open", "/usr/lib/x", "r", 0) == []
    assert reported(cell, "shutil.rmtree", "/home/learner", None) == [
        "tried to change /home/learner, outside its folder"
    ]
    assert reported(cell, "os.kill", 1, 9) == ["tried to send signal 9 to process 1"]
    assert reported(cell, "subprocess.Popen", "ls", ["ls", "-l"], None, None) == [
        "started a program: ls -l"
    ]
    assert reported(cell, "socket.connect", None, ("10.0.0.1", 80)) == [
        "tried to use the network: connect ('10.0.0.1', 80)"
    ]
    assert reported(cell, "open", object(), "r", 0) == []  # and nothing is raised
    assert (
        reported(str(Path(labkit.__file__).parent / "swarm" / "lab.py"), "open", "/etc/passwd", "r", 0)
        == []
    )
    assert reported("<frozen importlib._bootstrap>", "open", "/etc/passwd", "r", 0) == []


def _with_solutions(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a checkout with labs into a directory that is shown inside; returns the checkout."""
    checkout = base / "environment" / "src" / "labkit"
    (checkout / "labs" / "source").mkdir(parents=True)
    (checkout / "labs" / "source" / "01_x.md").write_text("the solution")
    (checkout / "compose").mkdir()
    monkeypatch.setattr(paths, "LABS", checkout / "labs")
    monkeypatch.setattr(paths, "CHECKOUT", None)
    monkeypatch.setattr(paths, "COMPOSE", base / "environment")
    return checkout


def test_the_labs_of_a_wheel_are_empty_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = _with_solutions(tmp_path, monkeypatch)
    (tmp_path / "given").mkdir()
    kernel = Kernel(tmp_path / "given", {}, LIMITS, sandboxed=True)
    with kernel.running():
        result = kernel.run(
            f"import os; print(*os.listdir({str(package / 'labs')!r}), sep=', ')\n"
            f"open({str(package / 'labs' / 'mine')!r}, 'w')"
        )
    assert result.outputs[0].text == "\n"
    assert "Read-only file system" in result.message


def test_a_checkout_in_an_environment_shows_the_package_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = _with_solutions(tmp_path, monkeypatch)
    monkeypatch.setattr(paths, "CHECKOUT", checkout)
    (checkout / "labkit").mkdir()
    monkeypatch.setattr(sandbox, "_PACKAGE", checkout / "labkit")
    shown = dict(sandbox._host_paths())
    assert shown[checkout.parents[1]] is True
    assert shown[checkout] is False
    assert shown[checkout / "labkit"] is True
    assert checkout / "labs" not in shown
