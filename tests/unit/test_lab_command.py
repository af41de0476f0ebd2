"""`labkit lab`: what is said, what JupyterLab is started with, and that a swarm comes first."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from labkit import page, paths, swarm
from labkit.cli import lab as command
from labkit.errors import EngineError, UsageError
from labkit.page import jupyterlab


class Became(Exception):
    """The program that the process would have become."""


@pytest.fixture
def execve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for becoming another program: raise its argv and environment."""

    def became(_: str, argv: list[str], env: dict[str, str]) -> NoReturn:
        raise Became(argv, env)

    monkeypatch.setattr(os, "execve", became)
    for name in ("LABKIT_REPLAY", "JUPYTER_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)


def start(directory: Path, **options: Any) -> tuple[list[str], dict[str, str]]:
    """Run the command; what it became."""
    with pytest.raises(Became) as caught:
        command.lab(directory, **options)
    argv, env = caught.value.args
    return argv, env


@pytest.mark.usefixtures("execve")
def test_jupyterlab_is_for_this_machine_and_asks_nobody_for_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_REPLAY", "recorded")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    argv, env = start(Path("mine"))
    assert argv[:3] == [sys.executable, "-m", "jupyterlab"]
    assert argv[3:] == [
        "--ip=127.0.0.1",
        f"--ServerApp.root_dir={tmp_path / 'mine'}",
        f"--LabApp.extra_labextensions_path={page.LABEXTENSIONS}",
        "--LabApp.extension_manager=readonly",
        "--KernelManager.transport=ipc",
    ]
    configs = [str(paths.LEARNER_CONFIG), str(paths.JUPYTER_CONFIG), "/mine"]
    assert env["JUPYTER_CONFIG_PATH"].split(os.pathsep) == configs
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    # A kernel's current directory is another one.
    assert env["LABKIT_REPLAY"] == str(tmp_path / "recorded")
    # A swarm that is started from there is like this one.
    assert (env["LABKIT_DOCKER"], env["LABKIT_ENGINE"]) == ("26.1", "auto")
    assert "no swarm is started" in capsys.readouterr().err
    assert (tmp_path / "mine" / "03_reach_a_container.ipynb").is_file()

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    argv, env = start(Path("mine"), no_browser=True, instructor=True)
    assert argv[-2:] == ["--no-browser", "--allow-root"]
    assert env["JUPYTER_CONFIG_PATH"].split(os.pathsep) == configs[1:]


@pytest.mark.usefixtures("execve")
def test_where_no_swarm_can_be_had_the_recordings_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise EngineError("no engine", hint="start one")

    monkeypatch.setattr(swarm, "find_or_up", refuse)
    with pytest.raises(EngineError) as caught:
        command.lab(tmp_path / "my labs")
    assert caught.value.hint == (
        f"start one\nwithout any swarm, on recorded answers: LABKIT_REPLAY={paths.EVIDENCE} "
        f"labkit lab '{tmp_path / 'my labs'}'"
    )


def test_kernels_have_their_sockets_where_nobody_else_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(named: Path) -> Path:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(named))
        own = jupyterlab.environment("x", "26.1", "vm", instructor=False)
        return Path(own["JUPYTER_RUNTIME_DIR"])

    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        other = Path(short) / f"labkit-jupyter-{os.getuid()}"
        jupyters, opened = Path(short) / "jupyter" / "runtime", Path(short) / "opened"
        opened.mkdir(mode=0o755)
        assert place(jupyters) == jupyters
        assert place(opened) == place(tmp_path / ("name" * 20)) == other
        assert {path.stat().st_mode & 0o777 for path in (jupyters, other)} == {0o700}
        assert opened.stat().st_mode & 0o777 == 0o755  # it may be /tmp
        other.rmdir()
        other.symlink_to(jupyters)  # a link is open to all, as the kernel sees it
        with pytest.raises(UsageError, match="have no place that is yours alone"):
            place(opened)


def test_many_names_are_counted() -> None:
    assert command._list(["a", "b", "c"]) == "a, b, c"
    assert command._list(["a", "b", "c", "d"]) == "a to d, 4 notebooks"
