"""What moves in a notebook: controls for an experiment, and the swarm as it is now.

A panel does nothing that a plain call does not. `explore` calls the function it was given, with the
values it shows, and draws the table that comes back; nothing is asked of the swarm before the button is
pressed. `swarm` shows what `lab.look()` returns, again and again. `table` shows a frame, to be sorted.
"""

from __future__ import annotations

from labkit.panel.explore import explore
from labkit.panel.live import swarm
from labkit.panel.table import table

__all__ = ["explore", "swarm", "table"]
