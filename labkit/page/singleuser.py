"""A learner's server on a JupyterHub: the labs in the home directory, JupyterLab with the kit's page.

`python -m labkit.page.singleuser` is what a hub starts for each learner (see `labkit class init`). The
swarm is started when the learner asks for it: one that nobody looks at costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from labkit import paths, swarm, workspace
from labkit.engines import DEFAULT_DOCKER, PRIVATE
from labkit.page import jupyterlab

FOLDER = "labkit-labs"
"""The learner's folder of labs, in the home directory."""

_END_SECONDS = 30.0

INSTRUCTOR = "LABKIT_INSTRUCTOR"
"""Set by the hub for those who have nbgrader's tools beside the labs."""


def main() -> NoReturn:
    """Become the learner's server; the hub has put how to reach it into the environment."""
    os.umask(0o077)  # what a learner writes is nobody else's
    folder = Path.home() / FOLDER
    workspace.fill(folder, paths.RELEASE)
    folder.chmod(0o700)  # also where it was there before
    docker = os.environ.get("LABKIT_DOCKER", DEFAULT_DOCKER)
    engine = os.environ.get("LABKIT_ENGINE", PRIVATE)
    own = jupyterlab.environment(
        swarm.default_lab(), docker, engine, instructor=bool(os.environ.get(INSTRUCTOR))
    )
    own["LABKIT_LEARNER"] = os.environ["JUPYTERHUB_USER"]
    argv = [sys.executable, "-m", "jupyterhub.singleuser", *jupyterlab.options(folder), *sys.argv[1:]]
    os.chdir(folder)
    os.execve(sys.executable, argv, {**os.environ, **own})


def stop(pid: int | None = None) -> None:
    """End the learner's server, and put their labs away on disk, where they are when it starts again.

    The server goes first, since it asks a lab that it shows, and that wakes it. One that has ended by
    itself has no process id; one that does not end in time is killed.
    """
    import psutil

    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(pid)
            server.terminate()
            _, left = psutil.wait_procs([server], timeout=_END_SECONDS)
            for one in left:
                one.kill()
            psutil.wait_procs(left, timeout=_END_SECONDS)
    subprocess.run([sys.executable, "-m", "labkit", "vm", "hibernate", "--all"], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stop"]:
        stop(*map(int, sys.argv[2:]))
    else:
        main()
