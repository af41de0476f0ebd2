"""How JupyterLab is started for the labs: by `labkit lab` on one's own machine, and by a hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from labkit import page, paths


def options(directory: Path) -> list[str]:
    """Return the options of JupyterLab on a learner's folder."""
    return [
        f"--ServerApp.root_dir={directory.resolve()}",
        f"--LabApp.extra_labextensions_path={page.LABEXTENSIONS}",
        "--LabApp.extension_manager=readonly",  # the other one asks a registry
    ]


def environment(lab: str, docker: str, engine: str, *, instructor: bool) -> dict[str, str]:
    """Return what JupyterLab, its terminals and kernels get beside the current environment.

    The kit's settings go before the user's: JupyterLab asks nobody for news or newer versions, and has
    nothing of nbgrader's for a learner. What is typed as `labkit` is this one. The current directory of
    a kernel is the notebook's, so LABKIT_REPLAY has to be absolute. A swarm that is started from there
    is of that Docker version and on that engine.
    """
    own = {"LABKIT_LAB": lab, "LABKIT_DOCKER": docker, "LABKIT_ENGINE": engine}
    kits = [paths.JUPYTER_CONFIG] if instructor else [paths.LEARNER_CONFIG, paths.JUPYTER_CONFIG]
    own["JUPYTER_CONFIG_PATH"] = _before(os.environ.get("JUPYTER_CONFIG_PATH"), *map(str, kits))
    own["PATH"] = _before(os.environ.get("PATH"), str(Path(sys.executable).parent))
    if replay := os.environ.get("LABKIT_REPLAY"):
        own["LABKIT_REPLAY"] = str(Path(replay).resolve())
    return own


def _before(users: str | None, *own: str) -> str:
    """Return a list of directories as the environment has it, the kit's own before the user's."""
    return os.pathsep.join([*own, *([users] if users else [])])
