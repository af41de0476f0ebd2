"""The swarm in a cell of a notebook, as it is now."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from labkit.swarm import lifecycle
from labkit.swarm.watch import State

if TYPE_CHECKING:
    from labkit.panel.widgets import SwarmWidget
    from labkit.swarm import Lab


def swarm(lab: Lab) -> SwarmWidget:
    """Return the picture of a swarm that goes with it: what `lab.look()` shows, live.

    It looks by a connection of its own, in a thread: it goes on while cells run, and nothing of it is
    in the evidence. Where nobody can see it, it looks no more. Without a browser, and in the saved
    notebook, it is the picture of the moment when the cell ran. On a replay there is nothing to look
    at, and it says so. Raises UnknownNameError where the lab does not run.
    """
    from labkit.panel.widgets import SwarmWidget

    if lab.learner is not None:  # the answers come from evidence
        return SwarmWidget(State(lab.name, "recorded", "No swarm runs: the answers are recorded ones."))
    with contextlib.closing(lifecycle.get(lab.name)) as found:
        return SwarmWidget(State.of(found))
