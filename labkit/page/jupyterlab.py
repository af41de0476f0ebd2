"""How JupyterLab is started for the labs: by `labkit lab` on one's own machine, and by a hub."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from labkit import page, paths
from labkit.errors import UsageError

_SOCKET = "/kernel-01234567-89ab-cdef-0123-456789abcdef-ipc-5"  # as long as all those of kernels
_LONGEST_PATH = 107  # bytes, of a unix socket


def options(directory: Path) -> list[str]:
    """Return the options of JupyterLab on a learner's folder."""
    return [
        f"--ServerApp.root_dir={directory.resolve()}",
        f"--LabApp.extra_labextensions_path={page.LABEXTENSIONS}",
        "--LabApp.extension_manager=readonly",  # the other one asks a registry
        # On TCP any account of the machine can subscribe to what a kernel runs and prints.
        "--KernelManager.transport=ipc",
    ]


def environment(lab: str, docker: str, engine: str, *, instructor: bool) -> dict[str, str]:
    """Return what JupyterLab, its terminals and kernels get beside the current environment.

    The kit's settings go before the user's: JupyterLab asks nobody for news or newer versions, and has
    nothing of nbgrader's for a learner. What is typed as `labkit` is this one. The current directory of
    a kernel is the notebook's, so LABKIT_REPLAY has to be absolute. A swarm that is started from there
    is of that Docker version and on that engine. Raises UsageError where the kernels' sockets have no
    place of their own.
    """
    own = {"LABKIT_LAB": lab, "LABKIT_DOCKER": docker, "LABKIT_ENGINE": engine}
    kits = [paths.JUPYTER_CONFIG] if instructor else [paths.LEARNER_CONFIG, paths.JUPYTER_CONFIG]
    own["JUPYTER_CONFIG_PATH"] = _before(os.environ.get("JUPYTER_CONFIG_PATH"), *map(str, kits))
    own["JUPYTER_RUNTIME_DIR"] = str(_runtime())
    own["PATH"] = _before(os.environ.get("PATH"), str(Path(sys.executable).parent))
    if replay := os.environ.get("LABKIT_REPLAY"):
        own["LABKIT_REPLAY"] = str(Path(replay).resolve())
    return own


def _runtime() -> Path:
    """Return the directory of the kernels' sockets and keys, which nobody else can enter.

    It is Jupyter's own, unless that is open to others or its path is too long for a socket in it.
    Raises UsageError where there is none.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    places = [Path(jupyter_runtime_dir()).resolve()]
    places.append(Path(tempfile.gettempdir()) / f"labkit-jupyter-{os.getuid()}")
    for folder in places:
        if len(os.fsencode(folder)) + len(_SOCKET) <= _LONGEST_PATH:
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                look = folder.lstat()
                if look.st_uid == os.getuid() and not look.st_mode & 0o077:
                    return folder
    raise UsageError(
        f"the kernels' sockets have no place that is yours alone: not {places[0]}, not {places[1]}",
        hint="JUPYTER_RUNTIME_DIR=DIR, with a short path, and: chmod 700 DIR",
    )


def _before(users: str | None, *own: str) -> str:
    """Return a list of directories as the environment has it, the kit's own before the user's."""
    return os.pathsep.join([*own, *([users] if users else [])])
