"""`labkit lab`: a learner's copies of the labs, a swarm that answers, and JupyterLab on the copies."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from labkit.cli.options import Docker, EngineKind, Lab
from labkit.engines import DEFAULT_DOCKER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.workspace import Copy

app = typer.Typer()


@app.command()
def lab(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where your copies of the labs are, or shall be.")
    ] = Path("labkit-labs"),
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address; open no browser.")
    ] = False,
    instructor: Annotated[
        bool, typer.Option("--instructor", help="With nbgrader's tools for who makes assignments.")
    ] = False,
    docker: Docker = DEFAULT_DOCKER,
    engine: EngineKind = "auto",
    lab: Lab = "default",
) -> None:
    """Copy the labs into DIR, never over your work; stand the swarm up; open JupyterLab there."""
    from labkit import paths, workspace
    from labkit.page import jupyterlab

    _show_copies(directory, workspace.fill(directory, paths.RELEASE))
    if replay := os.environ.get("LABKIT_REPLAY"):
        _say(f"no swarm is started: the answers are the recorded ones in {replay} (LABKIT_REPLAY)")
    else:
        docker, engine = _stand_up(lab, docker, engine, directory)
    own = jupyterlab.environment(lab, docker, engine, instructor=instructor)
    _open_jupyterlab(directory, own, no_browser=no_browser)


def _say(text: str) -> None:
    print(f"labkit: {text}", file=sys.stderr)


def _show_copies(directory: Path, copies: Iterable[Copy]) -> None:
    """Say what became of each notebook, one line for each kind of result."""
    lines = {
        "copied": "copied into {directory}: {names}",
        "updated": "updated, as you had not worked on it: {names}",
        "kept": "kept as you left it: {names}",
        "current": "already there and untouched: {names}",
    }
    copies = list(copies)
    for result, line in lines.items():
        names = [copy.path.name for copy in copies if copy.result == result]
        if names:
            _say(line.format(directory=directory, names=_list(names)))
    outdated = [copy.path.name for copy in copies if copy.outdated]
    if outdated:
        _say(f"newer in the kit: {_list(outdated)}; rename yours and run this again to get it")


def _list(names: list[str]) -> str:
    """Name up to three, count more."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}, {len(names)} notebooks"


def _stand_up(lab: str, docker: str, engine: str, directory: Path) -> tuple[str, str]:
    """Take the running lab, or start it; returns its Docker version and its engine.

    The error where none can be had offers the recordings.
    """
    from labkit import paths, swarm
    from labkit.errors import EngineError, SwarmError
    from labkit.progress import Bars

    try:
        running = swarm.find_or_up(lab, docker=docker, engine=engine, progress=Bars())
    except (EngineError, SwarmError) as problem:
        recorded = f"LABKIT_REPLAY={shlex.quote(str(paths.EVIDENCE))}"
        again = shlex.join(["labkit", "lab", str(directory)])
        offer = f"without any swarm, on recorded answers: {recorded} {again}"
        problem.hint = f"{problem.hint}\n{offer}" if problem.hint else offer
        raise
    _say(
        f"lab {lab}: {len(running.nodes)} nodes with Docker {running.docker}; "
        f"it stays up when JupyterLab ends; to take it down: labkit down --lab {lab}"
    )
    running.close()
    return running.docker, running.engine.kind


def _open_jupyterlab(directory: Path, own: dict[str, str], *, no_browser: bool) -> NoReturn:
    """Become JupyterLab on a directory, for this machine only and with a token (Jupyter's default)."""
    from labkit.page import jupyterlab

    argv = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", *jupyterlab.options(directory)]
    if no_browser:
        argv.append("--no-browser")
    if os.geteuid() == 0:
        argv.append("--allow-root")
    sys.stderr.flush()
    os.execve(sys.executable, argv, {**os.environ, **own})
