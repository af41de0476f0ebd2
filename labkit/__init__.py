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
    from labkit.variants import Variant

__version__ = "0.1.0"


def attach(lab: str | None = None) -> Lab:
    """Return the running lab, or start one with a progress bar.

    Without a name it is the one that LABKIT_LAB names, else "default".
    """
    from labkit import swarm

    return swarm.attach(lab)


def variant(learner: str | None = None) -> Variant:
    """Return the names, ports, subnets and replica counts that are a learner's own.

    Without an id it is the one that LABKIT_LEARNER names, else the login name.
    """
    from labkit import variants

    return variants.of(learner)
