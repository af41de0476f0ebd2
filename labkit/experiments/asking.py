"""The probes of the experiments: curl, ping, and the columns that each probe's row has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from labkit import swarm
from labkit.errors import UsageError
from labkit.schema import Column

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Task

TASK_PORT = 3000  # where the app listens in its container
TIMEOUT_S = 5.0  # much longer than an answer takes, also under emulation
_SIDE_BY_SIDE = 6  # probes at a time: with more, an emulated node answers too late

# The columns of a probe; `checks.reached` and `checks.not_reached` judge it by them.
PROBE = (
    Column("argv", "str", "the command as one would type it"),
    Column("code", "int", "its exit code"),
    Column("timed_out", "bool", "labkit had to end it"),
    Column("reached", "bool", "exit code 0: it was answered"),
    Column("seconds", "float", "how long it ran"),
    Column("answer", "str", "what curl printed; absent: no answer, or another tool than curl"),
    Column("stderr", "str", "what the tool printed as its error"),
)

FAMILY = Column("family", "str", "of the address: IPv4 or IPv6")

T = TypeVar("T")

_READINGS = 12  # of counters, at most, until two agree
# IPVS adds up its figures only every two seconds (Linux, net/netfilter/ipvs/ip_vs_est.c). Two readings
# within that time agree, and may both be out of date.
_IPVS_PERIOD_S = 2.5


def at_rest(lab: Lab, look: Callable[[], T]) -> T:
    """Read counters again and again until two readings agree; returns the last reading.

    Between two readings there is more time than IPVS needs to bring its figures up to date.
    """
    now = look()
    for _ in range(_READINGS):
        last = now
        lab.pause(_IPVS_PERIOD_S)
        now = look()
        if now == last:
            break
    return now


def family_of(address: str) -> str:
    """Return IPv4 or IPv6, as the columns `FAMILY` say it."""
    return "IPv6" if ":" in address else "IPv4"


def place_of(source: Task | Place) -> Place:
    """Return the place where a source's commands run; for a task it is its container."""
    return source if isinstance(source, swarm.Place) else source.place


def places_of(sources: Task | Place | Iterable[Task | Place]) -> list[Place]:
    """Return the places of sources, or of one; raises UsageError for what is none."""
    given = [sources] if isinstance(sources, (swarm.Task, swarm.Place)) else list(sources)
    for one in given:
        if not isinstance(one, (swarm.Task, swarm.Place)):
            raise UsageError(f"{one!r} is no task and no place", hint="lab.tasks('hello-a') has tasks")
    return [place_of(one) for one in given]


def tasks_of(targets: Task | Iterable[Task]) -> list[Task]:
    """Return targets; one task stands for a list of it. Raises UsageError for what is no task."""
    given = [targets] if isinstance(targets, swarm.Task) else list(targets)
    for one in given:
        if not isinstance(one, swarm.Task):
            raise UsageError(f"{one!r} is no task", hint="lab.tasks('hello-a') has tasks")
    return given


def address_of(task: Task, network: str) -> str:
    """Return a task's address on a network; raises UsageError where it has none there.

    `ingress` is the network of the routing mesh, whatever it is called.
    """
    if network == "ingress" and task.ingress:
        network = task.ingress
    if network not in task.addresses:
        known = ", ".join(task.addresses) or "none"
        raise UsageError(
            f"{task.name} has no address on {network!r}; it is on: {known}",
            hint="networks=[…] of the service says where its tasks are, publish=… puts them on ingress",
        )
    return task.addresses[network]


def tasks_by_container(lab: Lab) -> dict[str, str]:
    """Return the names of the running tasks by the first twelve characters of the container's id."""
    api = lab.manager.docker.api
    services = {row["ID"]: row["Spec"]["Name"] for row in api.services()}
    rows = [
        row
        for row in api.tasks(filters={"desired-state": "running"})
        if row["Status"]["State"] == "running"
    ]
    # Of a global service each node has one task, which no slot tells from the others.
    each = any("Slot" not in row for row in rows)
    nodes = (
        {row["ID"]: lab.called(row["Description"]["Hostname"]) for row in api.nodes()} if each else {}
    )
    return {
        container[:12]: f"{services[row['ServiceID']]}.{row.get('Slot') or nodes[row['NodeID']]}"
        for row in rows
        if (container := (row["Status"].get("ContainerStatus") or {}).get("ContainerID", ""))
    }


def run_in_batches(
    lab: Lab, commands: Sequence[tuple[Place, list[str]]], *, timeout: float = 60.0
) -> list[Capture]:
    """Run probes, several side by side; the captures come in the order given."""
    done: list[Capture] = []
    for begin in range(0, len(commands), _SIDE_BY_SIDE):
        done += lab.run_all(commands[begin : begin + _SIDE_BY_SIDE], timeout=timeout)
    return done


def curl(url: str, timeout_s: float) -> list[str]:
    """Return the argv of a curl that gives up after `timeout_s` seconds.

    Raises UsageError for a URL without a host: made of a table's empty cell, say.
    """
    host = urlsplit(url).netloc.rpartition(":")[0] or urlsplit(url).netloc
    if host in ("", "nan", "None", "<NA>"):
        raise UsageError(
            f"{url!r} has no address to ask",
            hint="drop the rows without an address first: df.dropna(subset=['address'])",
        )
    return ["curl", "-sS", "-m", f"{timeout_s:g}", url]


def ping(address: str, timeout_s: float) -> list[str]:
    """Return the argv of one ping that waits `timeout_s` seconds for its answer."""
    return ["ping", "-n", "-c", "1", "-W", f"{timeout_s:g}", address]


def probe(capture: Capture) -> Row:
    """Return what a probe's row has in the columns `PROBE`."""
    tool = capture.argv[0]
    return {
        "argv": capture.command,
        "code": capture.code,
        "timed_out": capture.timed_out,
        "reached": capture.ok,
        "seconds": round(capture.seconds, 3),
        "answer": capture.text.strip() if tool == "curl" and capture.ok else None,
        "stderr": capture.stderr.strip(),
    }
