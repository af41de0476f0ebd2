"""The health checks of the bench: what is asked, what a healthy swarm answers, and what was found.

A check is green where what was found is what was expected, and red otherwise. Checks that share a
command share its one run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit import programs
from labkit.experiments.asking import TASK_PORT
from labkit.faults import readings
from labkit.faults.testbed import (
    ASKER,
    BACK,
    CALLS,
    DOOR,
    FRONT,
    LABEL,
    PLAIN,
    PROBE,
    SECRET,
    Bench,
    find,
    listing,
)
from labkit.schema import Column, Row, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.swarm import Lab, Place

    Command = tuple[Place, list[str]]

_TIMEOUT_S = 5.0
_IDLE_S = 3.0  # as in labkit/programs/ask_twice.py
_LARGE = 20_000  # bytes: many full packets
_GREEN_SECONDS = 180.0


@dataclass(frozen=True)
class Check:
    """One question to the swarm: the command that asks it, and how its result is read."""

    id: str
    question: str
    command: Callable[[Bench], Command]
    expected: Callable[[Bench], str]  # what a healthy swarm answers
    found: Callable[[Bench, Capture], str]  # what was answered, or a word for the failure


def _always(word: str) -> Callable[[Bench], str]:
    """Return what gives the same word for every bench."""
    return lambda bench: word


def _to(service: str, network: str = PLAIN, path: str = "/") -> Callable[[Bench], str]:
    """Return what gives the URL of a service's task, by its address on a network."""
    tasks = {FRONT: lambda bench: bench.front, BACK: lambda bench: bench.back}
    return lambda bench: f"http://{tasks[service](bench).addresses[network]}:{TASK_PORT}{path}"


def _call(bench: Bench) -> str:
    """Return the URL that the asker's label holds."""
    return bench.label(ASKER, CALLS)


def _probe(bench: Bench) -> str:
    """Return the URL that the door's label holds, or the published port where there is no door."""
    return bench.label(DOOR, PROBE) or _published(bench)


def _published(bench: Bench) -> str:
    return f"http://127.0.0.1:{bench.port}/"


def _outside(bench: Bench) -> str:
    return f"http://{bench.nodes[1].address}:{bench.port}/"


_FAR, _NEAR, _FAR_SECRET = _to(BACK), _to(FRONT), _to(BACK, SECRET)
_FAR_LARGE = _to(BACK, path=f"/bytes/{_LARGE}")
# As many requests as show a backend that answers only some of them.
_BY_NAME = [_always(f"http://{FRONT}:{TASK_PORT}/bytes/{size}") for size in (1, 2, 3, 4)]
_TASKS_OF_BACK = f"tasks.{BACK}.{PLAIN}"


def _curl(bench: Bench, *urls: Callable[[Bench], str]) -> list[str]:
    """Return one curl for several URLs, since under emulation it is the start of a program that costs.

    It prints one line per URL: the URL, curl's exit code for it, and the seconds to its connection.
    """
    argv = [
        "curl",
        "-sS",
        "-m",
        f"{_TIMEOUT_S:g}",
        "--parallel",
        "--parallel-immediate",
        "--write-out",
        "%{url} %{exitcode} %{time_connect}\\n",
    ]
    for url in dict.fromkeys(url(bench) for url in urls):
        argv += ["--output", "/dev/null", url]
    return argv


def _how_many_answer(bench: Bench, capture: Capture) -> str:
    """Read how many of the requests by the name of front were answered."""
    words = [readings.word_of(url(bench), capture) for url in _BY_NAME]
    return f"{words.count('answers')} of {len(words)} answer"


def _asker(bench: Bench) -> Command:
    """Return the one command of all that asker asks by HTTP."""
    return bench.asker.place, _curl(bench, _NEAR, _FAR, _FAR_LARGE, _FAR_SECRET, *_BY_NAME, _call)


def _dig(bench: Bench) -> Command:
    """Return the one command of all that asker asks the DNS."""
    options = ["+time=2", "+tries=1", "+nosearch", "+noall", "+answer"]
    return bench.asker.place, ["dig", *options, FRONT, _TASKS_OF_BACK]


def _from_node(at: int) -> Callable[[Bench], Command]:
    """Return what gives the command of a node, from 0, that asks its own published port."""
    urls = (_published, _probe, _outside) if at == 0 else (_published,)
    return lambda bench: (bench.nodes[at].place, _curl(bench, *urls))


def _ask_twice(bench: Bench) -> Command:
    """Return the command that sends two requests on one connection, with a pause between them."""
    return bench.asker.place, ["python3", "-I", "-S", "-c", programs.source("ask_twice")]


def _overlay(*argv: str) -> Callable[[Bench], Command]:
    """Return what gives a command in the namespace of bench-plain on node1."""
    return lambda bench: (bench.nodes[0].overlay(PLAIN), list(argv))


def _states(bench: Bench) -> Command:
    """Return the command that lists the tasks that ought to run, with their states and errors."""
    return bench.lab.manager.place, listing(*sorted(bench.labels))


def _services(bench: Bench) -> Command:
    """Return the command that lists the bench's services with their tasks, running/wanted."""
    form = "{{.Name}} {{.Replicas}}"
    argv = ["docker", "service", "ls", "--filter", f"label={LABEL}", "--format", form]
    return bench.lab.manager.place, argv


def _asked(
    name: str, question: str, command: Callable[[Bench], Command], url: Callable[[Bench], str]
) -> Check:
    """Return the check that this URL, one of those in a curl, answers."""
    return Check(name, question, command, _always("answers"), readings.answer(url))


def _ports() -> list[Check]:
    """Return the check of the published port for each of the three nodes."""
    return [
        _asked(f"port-node{at + 1}", "the node asks its own published port", _from_node(at), _published)
        for at in range(3)
    ]


_CHECKS = (
    _asked("near", "asker asks front on node2, over bench-plain", _asker, _NEAR),
    _asked("far", "asker asks back on node3, over bench-plain", _asker, _FAR),
    _asked("far-large", f"asker asks back for {_LARGE} bytes, over bench-plain", _asker, _FAR_LARGE),
    _asked("far-encrypted", "asker asks back, over bench-secret", _asker, _FAR_SECRET),
    Check(
        "far-name",
        "asker asks the DNS for the task of back",
        _dig,
        lambda bench: bench.back.addresses[PLAIN],
        readings.resolved(_TASKS_OF_BACK),
    ),
    Check(
        "front-name",
        "asker asks the DNS for front: its virtual IP, and no other",
        _dig,
        lambda bench: bench.vip,
        readings.resolved(FRONT),
    ),
    Check(
        "neighbours",
        "vxlan0 of bench-plain: the MAC address of back",
        _overlay("ip", "neigh", "show", "dev", "vxlan0"),
        lambda bench: bench.mac(),
        readings.neighbour,
    ),
    Check(
        "forwarding",
        "vxlan0 of bench-plain: the node where that MAC address is",
        _overlay("bridge", "fdb", "show", "dev", "vxlan0"),
        lambda bench: bench.back.node.address,
        readings.tunnel,
    ),
    Check(
        "marks",
        "node1 has a rule that marks packets, for those to be encrypted",
        lambda bench: (bench.nodes[0].place, ["iptables", "-w", "10", "-t", "mangle", "-S", "OUTPUT"]),
        _always("a rule"),
        readings.marked,
    ),
    Check(
        "name",
        f"asker asks front by its name, {len(_BY_NAME)} times",
        _asker,
        _always(f"{len(_BY_NAME)} of {len(_BY_NAME)} answer"),
        _how_many_answer,
    ),
    Check(
        "idle",
        f"asker asks front by its name, waits {_IDLE_S:g} s, and asks again on the same connection",
        _ask_twice,
        _always("answers"),
        readings.held,
    ),
    Check(
        "call",
        "asker calls the address that its label says",
        _asker,
        _always("answers"),
        readings.answer_of_label(_call),
    ),
    *_ports(),
    _asked("outside", "node1 asks the published port at the address of node2", _from_node(0), _outside),
    Check(
        "probe",
        "node1 asks the door where the door's label says",
        _from_node(0),
        _always("answers"),
        readings.answer_of_label(_probe),
    ),
    Check(
        "scale",
        "front has all the tasks that it wants",
        _services,
        _always("all run"),
        readings.all_run(lambda name: name == FRONT),
    ),
    Check(
        "services",
        "each other service has all the tasks that it wants",
        _services,
        _always("all run"),
        readings.all_run(lambda name: name != FRONT),
    ),
    Check(
        "states",
        "each task that ought to run is Running",
        _states,
        _always("all run"),
        readings.not_running,
    ),
)
CHECKS = {check.id: check for check in _CHECKS}
"""Every check by its id, in the order of the table."""


@table(
    Column("look", "str", "the name of this look; looks can be stacked and drawn side by side"),
    Column("check", "str", "the id of the check"),
    Column("question", "str", "what is asked"),
    Column("node", "str", "the node that the command ran on"),
    Column("place", "str", "where it ran: a node, a task's container, a namespace"),
    Column("ok", "bool", "what was found is what was expected"),
    Column("expected", "str", "what a healthy swarm answers"),
    Column("found", "str", "what was answered, or a word for the failure"),
    Column("argv", "str", "the command as one would type it; several checks may share one"),
    Column("seconds", "float", "how long the command ran"),
)
def examine(lab: Lab, *, look: str = "now", only: Collection[str] = ()) -> Iterator[Row]:
    """Run the checks of the bench once, side by side, and return one row per check.

    `look` is what the caller calls this look. `only` names the checks to run; all of them where it is
    empty. Raises UsageError where the bench does not stand.
    """
    bench = find(lab)
    checks = [check for check in _CHECKS if not only or check.id in only]
    commands = [check.command(bench) for check in checks]
    distinct = {(place.label, *argv): (place, argv) for place, argv in commands}
    captures = dict(zip(distinct, lab.run_all(distinct.values()), strict=True))
    for check, (place, argv) in zip(checks, commands, strict=True):
        capture = captures[place.label, *argv]
        expected, found = check.expected(bench), check.found(bench, capture)
        yield {
            "look": look,
            "check": check.id,
            "question": check.question,
            "node": capture.node,
            "place": capture.place,
            "ok": found == expected,
            "expected": expected,
            "found": found,
            "argv": capture.command,
            "seconds": round(capture.seconds, 3),
        }


def red_checks(lab: Lab) -> dict[str, str]:
    """Run the checks once; returns what the red ones found, by check. Raises what `examine` raises."""
    seen = examine(lab)
    red = seen[~seen["ok"]]
    return dict(zip(red["check"], red["found"], strict=True))


def wait_until_green(lab: Lab, *, look: str = "now", seconds: float = _GREEN_SECONDS) -> pd.DataFrame:
    """Run the checks, and the red ones again until none is red; returns the table of `examine`.

    Raises UsageError where the bench does not stand, WaitTimeout with the checks that stay red.
    """
    import pandas as pd

    seen = examine(lab, look=look)

    def all_green() -> tuple[bool, str]:
        nonlocal seen
        red = seen[~seen["ok"]]
        if len(red):
            again = examine(lab, look=look, only=set(red["check"]))
            seen = _in_order(pd.concat([seen[seen["ok"]], again]))
            red = seen[~seen["ok"]]
        return not len(red), "; ".join(f"{row.check}: {row.found}" for row in red.itertuples())

    lab.wait_for(
        "every check of the bench to be green",
        all_green,
        seconds=seconds,
        hint=f"labkit reset --lab {lab.name} brings the fresh swarm back",
        every_s=0.5,
    )
    return seen


def _in_order(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of the checks."""
    order = list(CHECKS)
    return seen.sort_values("check", key=lambda names: names.map(order.index), ignore_index=True)
