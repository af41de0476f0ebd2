"""How the checks of the bench read a result: what was found, in a word or a few."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit.faults.testbed import PLAIN, SERVICES, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture

# NAME STATE … ago ERROR, of `docker service ps`.
_STATE = re.compile(r"(\S+) (\w+) .*?ago ?\"?(.*?)\"?")
# curl's exit codes, as its manual page has them, in a word each.
_CURL_WORDS = {
    0: "answers",
    6: "name unknown",
    7: "not connected",
    28: "time-out",
    52: "empty reply",
    56: "cut off",
}


def answer(url: Callable[[Bench], str]) -> Callable[[Bench, Capture], str]:
    """Return what reads in a curl's output whether this URL answered, or a word for its failure."""
    return lambda bench, capture: word_of(url(bench), capture)


def answer_of_label(url: Callable[[Bench], str]) -> Callable[[Bench, Capture], str]:
    """Return what reads the same of a label's URL, with host and port where it is not answered."""

    def found(bench: Bench, capture: Capture) -> str:
        word = word_of(url(bench), capture)
        return word if word == "answers" else f"{word}: {urlsplit(url(bench)).netloc}"

    return found


def word_of(url: str, capture: Capture) -> str:
    lines = {line.rsplit(" ", 2)[0]: line.split()[1:] for line in capture.lines}
    code, connecting = lines.get(url, [str(capture.code or 1), "0"])
    # A connection and then no word is another thing than no connection.
    if code == "28" and float(connecting) > 0:
        return "connected, silent"
    return _CURL_WORDS.get(int(code), f"exit code {code}")


def held(bench: Bench, capture: Capture) -> str:
    """Read whether the second request on one connection was answered, or the name of its error."""
    if capture.ok:
        return capture.text.strip()
    last_line = (capture.stderr.strip().splitlines() or [f"exit code {capture.code}"])[-1]
    return last_line.partition(":")[0]


def neighbour(bench: Bench, capture: Capture) -> str:
    """Read the MAC address of back in `ip neigh`."""
    rows = capture.check().table
    found = rows[rows["address"] == bench.back.addresses[PLAIN]]["mac"].dropna()
    return ", ".join(found) or "no entry"


def tunnel(bench: Bench, capture: Capture) -> str:
    """Read in `bridge fdb` the node (VTEP) that the MAC address of back is sent to."""
    rows = capture.check().table
    found = rows[rows["mac"] == bench.mac()]["vtep"].dropna()
    return ", ".join(found) or "no entry"


def resolved(name: str) -> Callable[[Bench, Capture], str]:
    """Return what reads the addresses of a name in the answers of dig; its errors begin with a ;."""

    def found(bench: Bench, capture: Capture) -> str:
        rows = [line.split() for line in capture.lines if line and not line.startswith(";")]
        addresses = sorted(row[-1] for row in rows if row[0] == f"{name}.")
        return ", ".join(addresses) or "no address"

    return found


def marked(bench: Bench, capture: Capture) -> str:
    """Read whether a rule of the table mangle marks packets."""
    return "a rule" if "MARK" in capture.check().text else "no rule"


def not_running(bench: Bench, capture: Capture) -> str:
    """Read in `docker service ps` which tasks do not run, with their state and Swarm's reason."""
    rows = [_STATE.fullmatch(line) for line in capture.lines]
    others = sorted(row.groups() for row in rows if row and row[2] != "Running")
    told = [f"{name} {state}{reason and f': {reason}'}" for name, state, reason in others]
    return "; ".join(told) or "all run"


def all_run(chosen: Callable[[str], bool]) -> Callable[[Bench, Capture], str]:
    """Return what reads in `docker service ls` which of the chosen services lack tasks, as 1/2."""

    def found(bench: Bench, capture: Capture) -> str:
        rows = dict(line.split()[:2] for line in capture.check().lines)
        counts = {name: "missing" for name in sorted({*SERVICES} - {*rows})} | rows
        short = [f"{name} {n}" for name, n in counts.items() if chosen(name) and not _all(n)]
        return ", ".join(short) or "all run"

    return found


def _all(count: str) -> bool:
    """Whether as many tasks run as are wanted, as in 2/2."""
    running, _, wanted = count.partition("/")
    return running == wanted
