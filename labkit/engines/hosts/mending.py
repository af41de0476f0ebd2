"""Undoes what a fault has broken on a machine, by the commands that are written down with it."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from labkit.engines.hosts import tools
from labkit.transport.base import Command
from labkit.transport.live import LiveLink

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.engines.hosts.record import Kept

log = logging.getLogger(__name__)

_COMMAND_SECONDS = 60.0


def mend(lab: str, kept: Kept, client: DockerClient) -> None:
    """Run what undoes a fault on a machine; raises SwarmError where it cannot be run.

    What was run is not in the record any more. A command fails where a person mended by hand before.
    """
    if lab not in tools.labs(client):
        told = "; ".join(typed(kept))
        log.warning(
            "labkit's tools are not on %s any more; what undoes the fault there: %s", kept.name, told
        )
        kept.undo = []
        return
    link = LiveLink(kept.name, tools.reach(client, kept.endpoint, lab))
    try:
        while kept.undo:
            step = kept.undo[0]
            words = Command(tuple(step["argv"]), kept.name, step["netns"], timeout=_COMMAND_SECONDS)
            _, pending = link.runner.submit(words)
            result = pending.result()
            if result.code:
                log.info("%s: undoing the fault: %s", kept.name, result.stderr.strip())
            kept.undo.pop(0)
    finally:
        link.close()


def typed(kept: Kept) -> list[str]:
    """Return what undoes the fault on a machine, as a person types it there."""
    return [
        shlex.join([*(["nsenter", f"--net={step['netns']}"] if step["netns"] else []), *step["argv"]])
        for step in kept.undo
    ]
