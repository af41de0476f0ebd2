"""Wrong input: one clear message, the next step, the exit code of its kind, and nothing left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit import cli, paths
from labkit import doctor as diagnosis
from labkit.engines import debian as bootstrap
from labkit.engines.vm import accel, engine
from labkit.engines.vm import image as machine
from labkit.errors import EngineError
from tests import BIN


def labkit(*argv: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no lab runs and no Docker engine answers."""
    environment = {**os.environ, "LABKIT_HOME": str(home), "DOCKER_HOST": "tcp://127.0.0.1:9", **more}
    return subprocess.run([BIN, *argv], capture_output=True, text=True, env=environment, check=False)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Undo what the command does to the signals of its process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["up", "--nodes", "0"], 2, "0 nodes was asked for; 1 to 20 can be had"),
        (["up", "--nodes", "40"], 2, "40 nodes was asked for; 1 to 20 can be had"),
        (["up", "--nodes", "many"], 2, "'--nodes'"),
        (["up", "--managers", "4"], 2, "4 managers of 3 nodes"),
        (["up", "--docker", "19.03"], 2, "'19.03'; there are: 20.10, 26.1, 28.5"),
        (["up", "--engine", "podman"], 2, "'podman'; there are: auto, docker, hosts, vm"),
        (["up", "--engine", "docker"], 3, "no Docker engine answers at tcp://127.0.0.1:9"),
        (["up", "--lab", "Monday Class"], 2, "'Monday Class' cannot be a lab's name"),
        (["up", "--compose", "/no/such/file"], 2, "/no/such/file, line 1"),
        (["status"], 2, "no running lab is called 'default'; there are: none"),
        (["status", "--lab", "tuesday"], 2, "labkit up --lab tuesday"),
        (["exec", "node1", "--", "true"], 2, "no running lab is called 'default'"),
        (["env"], 2, "no running lab"),
        (["run", "99"], 2, "99"),
        (["run", "03", "--replay", "/no/such/folder"], 2, "holds no evidence of 03_reach_a_container"),
        (["run", "--replay", "x", "--evidence", "y"], 2, "a replay leaves no evidence"),
        (["up", "--engine", "replay"], 2, "a replay has no engine that could be started"),
        (["reset"], 2, "no running lab is called 'default'"),
        (["checkpoint", "save", "Before The Fault"], 2, "cannot be a checkpoint's name"),
        (["checkpoint", "save", "before"], 3, "does not run on the embedded machine"),
        (["checkpoint", "restore", "before"], 2, "no checkpoint of lab 'default' is called 'before'"),
        (["vm", "export", "class.tar.zst"], 3, "no saved state of 3 nodes with Docker 26.1"),
        (["vm", "import", "/no/such/file"], 2, "/no/such/file is not a file"),
        (["vm", "build", "--docker", "1.12"], 2, "there are: 20.10, 26.1, 28.5"),
        (["fault", "inject"], 2, "which fault?"),
        (["fault", "inject", "nat-flush"], 2, "no fault is called 'nat-flush'; there are: "),
        (["fault", "heal"], 2, "no running lab is called 'default'"),
        (["grade", "/no/such/folder"], 2, "/no/such/folder cannot be read"),
        (["grade", "/usr", "--unsafe"], 2, "/usr holds no submission"),
        (["grade", "/usr", "--timeout", "0"], 2, "'--timeout'"),
        (["grade", "/usr", "--handed-out", "soon"], 2, "'soon' is no date"),
        (["grade", "/usr", "--roster", "/no/such/file"], 2, "the roster /no/such/file cannot be read"),
        (["grade", "/usr", "--unsafe", "--public-key", "/no/such/file"], 2, "there is no public key"),
        (["grade", "/etc/passwd", "--unsafe"], 2, "/etc/passwd cannot be unpacked"),
        (["sign", "/usr/x.evidence.jsonl", "--key", "/no/key", "--learner", "a"], 2, "there is no key"),
        (["signing-key", "/etc/passwd"], 2, "/etc/passwd is there already"),
        (["feedback", "/usr"], 2, "/usr holds no marks"),
        (["class", "check", "--learner", "../eve"], 2, "'../eve' cannot be a learner's id"),
        (["class", "check", "--learner", "a", "--out", "/no/such/file"], 2, "cannot be written"),
        (
            ["class", "check", "--learner", "a", "--engine", "podman"],
            2,
            "there are: auto, docker, hosts, vm",
        ),
        (["class", "report", "/no/such/file"], 2, "/no/such/file cannot be read"),
        (["class", "slides", "99"], 2, "99"),
        (["up", "--hosts", "none.yaml"], 2, "none.yaml, line 1, key ''"),
        (["doctor", "--hosts", "none.yaml", "--json"], 2, "docs/hosts.md has an example"),
        (["up", "--engine", "hosts"], 2, "labkit up --hosts hosts.yaml"),
        (["fly"], 2, "fly"),
    ],
)
def test_wrong_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["labkit", *argv])
    with signals_kept(), pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capfd.readouterr()
    assert ended.value.code == code
    assert said in shown.err
    assert "Next step: " in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_clean_up_could_not_do_stands_below_the_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        problem = EngineError("the first error", hint="mend it")
        problem.add_note("and beta could not be cleaned up")
        raise problem

    monkeypatch.setattr(cli, "app", fail)
    with signals_kept(), pytest.raises(SystemExit):
        cli.main()
    assert capfd.readouterr().err == (
        "labkit: the first error\nNext step: mend it\nand beta could not be cleaned up\n"
    )


def test_a_broken_description_of_the_nodes_names_line_and_key(tmp_path: Path) -> None:
    broken = tmp_path / "swarm.yaml"
    text = (paths.COMPOSE / "swarm.yaml").read_text()
    broken.write_text(text.replace("privileged: true", "privileged: perhaps"))
    done = labkit("up", "--compose", str(broken), home=tmp_path / "home")
    line = next(i for i, t in enumerate(broken.read_text().splitlines(), 1) if "perhaps" in t)
    assert done.returncode == 2
    assert f"line {line}, key 'services.node1.privileged'" in done.stderr


def test_down_without_a_lab_is_no_failure(tmp_path: Path) -> None:
    done = labkit("down", "--all", "--json", home=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"down": []})


def test_doctor_says_which_engine_and_why(tmp_path: Path) -> None:
    done = labkit("doctor", "--json", home=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["engine"] == "vm"
    assert "no Docker engine answers" in told["why"]
    for check in told["checks"]:
        assert set(check) == {"name", "ok", "detail", "remedy"}
        assert check["ok"] or check["remedy"] or check["name"] == "accelerator"


@pytest.mark.parametrize(
    ("line", "kind", "ok"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "tcg", False),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "kvm", True),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)", "tcg", True),
        ("QEMU emulator, of one's own", "tcg", True),
    ],
)
def test_doctor_recommends_a_qemu_that_does_not_panic(
    line: str, kind: str, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "qemu_version", lambda: line)
    monkeypatch.setattr(engine, "_verdict", lambda: accel.Verdict(kind, "so it is"))
    (check,) = [c for c in engine.VmEngine().examine() if c.name == "QEMU"]
    assert check.ok is ok
    assert ("backports" in check.remedy) is not ok


def test_doctor_examines_a_machine_whose_qemu_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "SEARCH_PATH", "/nowhere")
    monkeypatch.setattr(machine, "directory", lambda: tmp_path)
    checks = {check["name"]: check for check in diagnosis.examine()["checks"]}
    assert "qemu" in checks["accelerator"]["detail"]
    assert "apt-get install" in checks["accelerator"]["remedy"]
    assert not checks["Debian packages"]["ok"]
    assert {"Docker versions", "sandbox for grading"} <= checks.keys()


def test_what_is_missing_comes_with_the_command_that_installs_it() -> None:
    code = """
from labkit.engines import debian as bootstrap
bootstrap.SEARCH_PATH = "/nowhere"
try:
    bootstrap.tool("mmdebstrap")
except Exception as problem:
    print(problem.exit_code, problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 the embedded machine needs programs that are not here: mmdebstrap")
    assert "sudo apt-get install --no-install-recommends mmdebstrap" in done.stdout


def test_a_full_disk_is_told_before_anything_is_built() -> None:
    mount = f"mount -t tmpfs -o size=40m tmpfs /mnt && LABKIT_HOME=/mnt exec {BIN} vm build"
    user = ["--map-root-user"] if os.geteuid() else []
    argv = ["unshare", *user, "--mount", "--", "sh", "-c", mount]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "GB free, building needs" in done.stderr
    assert "LABKIT_HOME" in done.stderr
