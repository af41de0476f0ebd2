"""Programs that run on a node or in a task, by `python3 -c`: plain Python, and nothing of labkit.

Each program is a file beside this one, and its text is what is sent. A recording finds an answer by the
words of its command, so a changed text (a comment is enough) makes that command unknown to every
recording made before. `tests/unit/test_programs.py` compares the texts with those recordings.

    watcher            looks at DNS, IPVS, tasks and processes; prints a JSON line for each change
                       (`experiments.timeline`)
    keep_asking        URL SECONDS keep|close: asks for a URL of the app every so many seconds until it
                       is interrupted, over one connection or over a new one for each request; prints a
                       JSON line for each request (`experiments.scaling`)
    ask_after_pause    URL IDLE_S PROBE_S TIMEOUT_S: asks, leaves the connection idle, asks again on it;
                       a PROBE_S above 0 lets TCP send probes meanwhile; prints one JSON line at its end
                       (`experiments.idle_connections`)
    ask_twice          the same for the service `front` of the faults' testbed, with its figures in the
                       text: prints `answers`, or ends with `closed` (the health check `idle`)
    proxy              URL: passes each request that comes to port 3000 on to URL's server, with the
                       client's address in X-Forwarded-For (lab 12)
    attached           SOCKET terminal|pipes CMD…: runs a command for who connects, with its input
                       and output (`labkit exec`); in no recording
    hostlook           ADDRESS MODULE…: what a machine of one's own has: networks, MTU, kernel modules
    crossing           listen|send …: which of Swarm's packets get from one such machine to another

Most of them begin to work when they are imported, so nothing imports them: `source` reads the text.
"""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def source(name: str) -> str:
    """Return the text of a program, as it is sent.

    Raises FileNotFoundError where there is no program of that name.
    """
    return (resources.files(__name__) / f"{name}.py").read_text(encoding="utf-8")


def argv(name: str, *words: str) -> list[str]:
    """Return the command that runs a program with these words after its text.

    Raises FileNotFoundError where there is no program of that name.
    """
    return ["python3", "-c", source(name), *words]
