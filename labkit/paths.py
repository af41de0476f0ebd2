"""Where things live on this machine: the one place that reads the environment for it.

``LABKIT_HOME`` moves everything under one directory; without it, the platform's cache directory holds
what can be built again and the state directory holds what runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

REPOSITORY = Path(__file__).resolve().parent.parent
COMPOSE = REPOSITORY / "compose"


def cache() -> Path:
    """Return the directory of what was built; it may be deleted when no lab runs."""
    home = os.environ.get("LABKIT_HOME")
    return Path(home) / "cache" if home else platformdirs.user_cache_path("labkit")


def machines() -> Path:
    """Return the directory that has one directory for each running embedded machine."""
    home = os.environ.get("LABKIT_HOME")
    return Path(home) / "labs" if home else platformdirs.user_state_path("labkit") / "labs"
