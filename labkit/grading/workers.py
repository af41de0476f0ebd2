"""Processes that read strangers' files: forked from one that has loaded what they need."""

from __future__ import annotations

import multiprocessing
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

MEMORY = 6 * 2**30  # bytes of addresses of one of them
_LOADED = ["labkit.grading.marking", "labkit.grading.inspection", "matplotlib", "nbgrader.utils"]


def context() -> ForkServerContext:
    """Return what starts such processes."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_LOADED)
    return found


def limit_memory() -> None:
    """Let this process have no more memory than reading a stranger's files may take."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
