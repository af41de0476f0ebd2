"""Hands-on labs on container networking, on a real Docker Swarm that runs on one machine.

import labkit
lab = labkit.attach()                    # the running lab, or starts one
a, b = lab.tasks("hello-a")
a.run("ip neigh")                        # a Capture; .table is a DataFrame
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab
    from labkit.variants import Variant

__version__ = "0.1.0"


def attach(lab: str | None = None, *, replay: bool | str | Path = False) -> Lab:
    """Return the running lab, or start one with a progress bar.

    Without a name it is the one that LABKIT_LAB names, else "default". With `replay` no swarm is
    needed: the answers are recorded ones, of an evidence file or (True) of the recording that the kit
    came with.
    """
    from labkit.swarm import attach as attaching

    return attaching.attach(lab, replay=replay)


def variant(learner: str | None = None) -> Variant:
    """Return the names, ports, subnets and replica counts that are a learner's own.

    Without an id it is the one that LABKIT_LEARNER names, else the login name; on a replay it is the
    recorded learner's. Warns where that is a login that many share: they would all have one variant.
    """
    import warnings

    from labkit import variants
    from labkit.evidence import replayed as replay

    you = variants.of(learner or replay.learner())
    if not learner and not replay.learner() and variants.is_shared(you):
        warnings.warn(variants.SHARED.format(login=you.learner), stacklevel=2)
    return you


def score(notebook: str | Path | None = None) -> pd.DataFrame:
    """Return a table of the checks' outcomes in this notebook so far, with their points."""
    from labkit import outcomes as tally

    return tally.score(Path(notebook) if notebook else None)


def hint(question: str = "") -> None:
    """Show the next hint of a question, with those before it.

    A question is called LAB.QUESTION, "03.who" say, or "who" alone in its own notebook; without a name
    it is the one that was missed last. Raises UnknownNameError, UsageError.
    """
    from labkit import tries

    tries.show(question)


def submit_check(notebook: str | Path | None = None) -> None:
    """Say whether a notebook can be graded as it stands, a sentence each; without a name, this one."""
    from labkit.grading import precheck as submission

    submission.show(Path(notebook) if notebook else None)
