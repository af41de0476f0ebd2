"""Where things live: the files that the kit comes with, and its directories on this machine.

The kit's labs, Compose files and benchmark script are folders beside `labkit/` in a checkout. In an
installed wheel they are copies of the same folders inside the package (setup.py puts them there), so
that each constant here is right in both cases.

``LABKIT_HOME`` moves what the kit writes on this machine under one directory; without it, the cache
directory of the platform holds what can be built again and the state directory holds what runs.
``LABKIT_SHARED`` names the cache of somebody else on this machine, which is read and never written.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parent
_SHIPPED = PACKAGE / "_kit"

CHECKOUT: Path | None = None if _SHIPPED.is_dir() else PACKAGE.parent
REPOSITORY = CHECKOUT or _SHIPPED

COMPOSE = REPOSITORY / "compose"
LABS = REPOSITORY / "labs"  # claims.yaml, and the three folders below
SOURCES = LABS / "source"  # the labs with their solutions, MyST text
RELEASE = LABS / "release"  # the learners' notebooks
EVIDENCE = LABS / "evidence"  # a recording of each lab
MATRIX = REPOSITORY / "tests" / "matrix.json"  # which checks passed on which Docker version
PLAIN_UP = REPOSITORY / "bench" / "plain_up.sh"  # what the benchmark compares `labkit up` with
JUPYTER_CONFIG = PACKAGE / "jupyter"  # settings of the JupyterLab that `labkit lab` opens
LEARNER_CONFIG = JUPYTER_CONFIG / "learner"  # and those for everybody who is not an instructor


def results() -> Path:
    """Return the directory in which commands put their results: the checkout, else the current one."""
    return CHECKOUT or Path.cwd()


def cache() -> Path:
    """Return the directory of what was built; it may be deleted when no lab runs."""
    home = os.environ.get("LABKIT_HOME")
    return Path(home) / "cache" if home else platformdirs.user_cache_path("labkit")


def shared() -> Path | None:
    """Return the cache that the users of this machine have in common, where there is one."""
    named = os.environ.get("LABKIT_SHARED")
    return Path(named) if named else None


def caches() -> list[Path]:
    """Return the caches to look for what was built in: the user's own, then the shared one."""
    return [cache(), *filter(None, [shared()])]


def built(name: str) -> Path:
    """Return where something that was built is, by its name in a cache; without it, its own place."""
    places = [cache / name for cache in caches()]
    return next((place for place in places if place.exists()), places[0])


def machines() -> Path:
    """Return the directory that has one directory for each running embedded machine.

    It is named as the kernel names it, without links: a machine is known by the directory that its
    process works in.
    """
    home = os.environ.get("LABKIT_HOME")
    state = Path(home) if home else platformdirs.user_state_path("labkit")
    return (state / "labs").resolve()
