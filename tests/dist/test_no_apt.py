"""On a system without apt, QEMU and bubblewrap: macOS or Fedora, say, with a Docker engine."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from labkit import paths, swarm
from labkit.authoring import release
from tests.dist.conftest import ROOT, Installed
from tests.jupyter import serving


@pytest.fixture
def bare(installed: Installed, path_without_apt: str) -> Installed:
    """The wheel's commands where those programs are not there."""
    installed.env["PATH"] = path_without_apt
    return installed


def test_set_up_asks_nothing_of_apt(bare: Installed) -> None:
    done = subprocess.run(
        [ROOT / "tools" / "debian-packages", bare.bin / "python", "chromium"],
        env=bare.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_old_python_is_refused_without_naming_apt(bare: Installed, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "python-environment", python],
        env=bare.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "Python 3.11" in done.stderr
    assert "apt" not in done.stderr


def test_recorded_answers_need_no_engine(bare: Installed, tmp_path: Path) -> None:
    env = {**bare.env, "LABKIT_REPLAY": str(bare.evidence())}
    argv = [bare.bin / "labkit", "lab", "mine", "--no-browser"]
    with serving(argv, log=tmp_path / "jupyter.log", env=env, cwd=bare.cwd) as url:
        assert urllib.request.urlopen(url).status == 200


def test_where_no_swarm_is_possible_the_recordings_are_offered(bare: Installed) -> None:
    done = subprocess.run(
        [bare.bin / "labkit", "lab", "mine", "--no-browser"],
        env={**bare.env, "LABKIT_HOME": str(bare.cwd / "kit")},
        cwd=bare.cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert f"LABKIT_REPLAY={bare.evidence()} labkit lab mine" in done.stderr
    sources = release.find_labs(paths.SOURCES)
    handed_out = {notebook.stem for notebook in (bare.cwd / "mine").glob("*.ipynb")}
    assert handed_out == {source.stem for source in sources}


@pytest.mark.live
def test_a_docker_engine_is_enough(lab: swarm.Lab, bare: Installed, tmp_path: Path) -> None:
    """The engine is that of the tests' embedded machine, as DOCKER_HOST names it."""
    log = tmp_path / "jupyter.log"
    env = {**bare.env, **lab.engine.environment, "LABKIT_LAB": "bare"}
    doctor = json.loads(bare("labkit", "doctor", "--json", **lab.engine.environment).stdout)
    assert doctor["engine"] == "docker"
    argv = [bare.bin / "labkit", "lab", "mine", "--no-browser"]
    try:
        with serving(argv, log=log, env=env, cwd=bare.cwd, seconds=400) as url:
            assert urllib.request.urlopen(url).status == 200
        assert "lab bare: 3 nodes with Docker 26.1" in log.read_text()
        listed = bare("labkit", "exec", "node1", "--", "docker", "node", "ls", **env).stdout
        assert listed.count("Ready") == 3
    finally:
        bare("labkit", "down", "--lab", "bare", **env)
