"""Hands-on labs on container networking, on a real Docker Swarm that runs on one machine.

import labkit
lab = labkit.attach()                    # the running lab, or starts one
a, b = lab.tasks("hello-a")
a.run("ip neigh")                        # a Capture; .table is a DataFrame
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.swarm import Lab

__version__ = "0.1.0"


def attach(lab: str | None = None) -> Lab:
    """Return the running lab, or start one with a progress bar.

    Without a name it is the one that LABKIT_LAB names, else "default".
    """
    from labkit import swarm

    return swarm.attach(lab)
