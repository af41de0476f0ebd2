"""The bench that faults are tried on: a few small services, and the checks that are green on it.

    asker    node1    bench-plain, bench-secret    asks the others
    front    node2    bench-plain, bench-small     one task; bench-small has no address for another
    back     node3    bench-plain, bench-secret
    door     node2    published

What the bench is stands in the swarm (names, and the label `labkit.bench` with the published port), so
that any process finds it. Two labels say what is asked: `labkit.calls` of `asker` is the address that
it calls its partner by, `labkit.probe` of `door` is where node1 looks whether the door is open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit import variants
from labkit.errors import UsageError
from labkit.experiments.asking import TASK_PORT

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.swarm import Lab, Node, Place, Task
    from labkit.variants import Variant

    Command = tuple[Place, list[str]]

PLAIN, SECRET, SMALL = "bench-plain", "bench-secret", "bench-small"
ASKER, FRONT, BACK, DOOR = SERVICES = ("asker", "front", "back", "door")
LABEL, CALLS, PROBE = "labkit.bench", "labkit.calls", "labkit.probe"
# Four addresses, of which the last is for broadcasts: a virtual IP, a load balancer and one task.
_SMALL = ["--subnet", "10.250.0.0/29", "--gateway", "10.250.0.1", "--ip-range", "10.250.0.4/30"]
_TIMEOUT_S = 5.0
_IDLE_S = 3.0
_LARGE = 20_000  # bytes: many full packets
_GREEN_SECONDS = 180.0

# One connection, two requests, a pause between them. curl would hide a lost connection by a new one.
_IDLE = f"""\
import socket, time
link = socket.create_connection(("{FRONT}", {TASK_PORT}), {_TIMEOUT_S:g})
for pause in ({_IDLE_S:g}, 0):
    link.sendall(b"GET / HTTP/1.1\\r\\nHost: {FRONT}\\r\\n\\r\\n")
    text = b""
    while not text.endswith(b"HI\\n"):
        more = link.recv(4096)
        if not more:
            raise SystemExit("closed")
        text += more
    time.sleep(pause)
print("answers")
"""


@dataclass(frozen=True)
class Bench:
    """The bench as it stands now: its port, and those of its tasks that are asked by address."""

    lab: Lab
    port: int
    asker: Task
    front: Task
    back: Task
    labels: dict[str, dict[str, str]]  # of each service of the bench

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        """The nodes that the bench is on, whichever numbers they have."""
        return _nodes(self.lab)

    def mac(self, network: str = PLAIN) -> str:
        """The MAC address of `back`, which libnetwork makes of the IP address."""
        packed = ipaddress.IPv4Address(self.back.addresses[network]).packed
        return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + packed)

    def label(self, service: str, name: str) -> str:
        """Return what a label of a service says; empty where there is no such service."""
        return self.labels.get(service, {}).get(name, "")


def _nodes(lab: Lab) -> tuple[Node, Node, Node]:
    if len(lab.nodes) < 3:
        raise UsageError(
            f"lab {lab.name!r} has {len(lab.nodes)} nodes, and the bench for faults needs three",
            hint=f"labkit down --lab {lab.name}, then labkit up --lab {lab.name} --nodes 3",
        )
    first, second, third, *_ = lab.nodes.values()
    return first, second, third


# --- stand it up, find it ------------------------------------------------------------------------


def stage(lab: Lab, you: Variant | None = None) -> Bench:
    """Stand the bench up, or what is missing of it, and wait until every check is green.

    Its published port is the learner's own, and no other lab's. Raises UsageError on fewer than three
    nodes, WaitTimeout where a check stays red.
    """
    restore(lab, (you or variants.of(lab.learner)).port + 1000)
    wait_until_green(lab)
    return find(lab)


def restore(lab: Lab, port: int) -> None:
    """Make what is missing of the bench, without a look at whether it works."""
    one, two, three = _nodes(lab)
    lab.network(PLAIN)
    lab.network(SECRET, options=["--opt", "encrypted"])
    lab.network(SMALL, options=_SMALL)
    both = [PLAIN, SECRET]
    call, look = f"{CALLS}=http://{FRONT}:{TASK_PORT}/", f"{PROBE}=http://127.0.0.1:{port}/"

    def make(
        name: str, node: Node, networks: Sequence[str], *more: str, publish: str | None = None
    ) -> None:
        options = ["--constraint", f"node.hostname=={node.name}", "--stop-grace-period", "1s"]
        options += ["--label", f"{LABEL}={port}", *more]
        lab.service(name, networks=networks, options=options, publish=publish)

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        making = [
            pool.submit(make, ASKER, one, both, "--label", call),
            pool.submit(make, FRONT, two, [PLAIN, SMALL]),
            pool.submit(make, BACK, three, both),
            pool.submit(make, DOOR, two, [], "--label", look, publish=f"{port}:{TASK_PORT}"),
        ]
        for one_made in making:
            one_made.result()


def labels(lab: Lab) -> dict[str, dict[str, str]]:
    """Return the labels of what stands of the bench, by service."""
    rows = lab.manager.docker.api.services(filters={"label": LABEL})
    return {row["Spec"]["Name"]: row["Spec"]["Labels"] for row in rows}


def find(lab: Lab) -> Bench:
    """Return the bench as it stands; raises UsageError where there is none."""
    told = labels(lab)
    try:
        with ThreadPoolExecutor(3) as pool:
            asker, front, back = pool.map(lab.task, [f"{name}.1" for name in (ASKER, FRONT, BACK)])
    except UsageError as problem:
        raise UsageError(
            f"lab {lab.name!r} has no bench for faults, or not all of it: {problem.args[0]}",
            hint="faults.stage(lab) in a notebook; `labkit fault inject` does it by itself",
        ) from problem
    return Bench(lab, int(told[ASKER][LABEL]), asker, front, back, told)


# --- what is checked on it -----------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One question to the swarm: who is asked what, what a healthy swarm answers, what is found."""

    id: str
    question: str
    ask: Callable[[Bench], Command]
    expected: Callable[[Bench], str]
    found: Callable[[Bench, Capture], str]


def _answer(url: Callable[[Bench], str]) -> Callable[[Bench, Capture], str]:
    """Whether one of the URLs of a curl answered, or a word for its failure."""

    def found(bench: Bench, capture: Capture) -> str:
        words = {
            6: "name unknown",
            7: "not connected",
            28: "time-out",
            52: "empty reply",
            56: "cut off",
        }
        told = dict(line.rsplit(" ", 1) for line in capture.lines)
        code = int(told.get(url(bench), capture.code or 1))
        return words.get(code, f"exit code {code}") if code else "answers"

    return found


def _held(bench: Bench, capture: Capture) -> str:
    """What came of the second request on one connection."""
    if capture.ok:
        return capture.text.strip()
    said = (capture.stderr.strip().splitlines() or [f"exit code {capture.code}"])[-1]
    return said.partition(":")[0]


def _neighbour(bench: Bench, capture: Capture) -> str:
    rows = capture.check().table
    mine = rows[rows["address"] == bench.back.addresses[PLAIN]]["mac"].dropna()
    return ", ".join(mine) or "no entry"


def _tunnel(bench: Bench, capture: Capture) -> str:
    rows = capture.check().table
    mine = rows[rows["mac"] == bench.mac()]["vtep"].dropna()
    return ", ".join(mine) or "no entry"


def _resolved(bench: Bench, capture: Capture) -> str:
    given = [line for line in capture.lines if line and not line.startswith(";")]
    return ", ".join(given) or "no address"


def _all_run(mine: Callable[[str], bool]) -> Callable[[Bench, Capture], str]:
    """Read in `docker service ls` which of the services meant have fewer tasks than they want."""

    def found(bench: Bench, capture: Capture) -> str:
        rows = [line.split()[:2] for line in capture.check().lines]
        late = [f"{name} {n}" for name, n in rows if mine(name) and len(set(n.split("/"))) > 1]
        return ", ".join(late) or "all run"

    return found


def _to(service: str, network: str = PLAIN, path: str = "/") -> Callable[[Bench], str]:
    """The URL of a service's task by its address."""
    tasks = {FRONT: lambda bench: bench.front, BACK: lambda bench: bench.back}
    return lambda bench: f"http://{tasks[service](bench).addresses[network]}:{TASK_PORT}{path}"


def _call(bench: Bench) -> str:
    return bench.label(ASKER, CALLS)


def _probe(bench: Bench) -> str:
    return bench.label(DOOR, PROBE) or _published(bench)


def _published(bench: Bench) -> str:
    return f"http://127.0.0.1:{bench.port}/"


_FAR, _NEAR, _FAR_SECRET = _to(BACK), _to(FRONT), _to(BACK, SECRET)
_FAR_LARGE = _to(BACK, path=f"/bytes/{_LARGE}")


def _curl(bench: Bench, *urls: Callable[[Bench], str]) -> list[str]:
    """One curl for several URLs at once: under emulation the start of a program is what costs."""
    argv = [
        "curl",
        "-sS",
        "-m",
        f"{_TIMEOUT_S:g}",
        "--parallel",
        "--parallel-immediate",
        "--write-out",
        "%{url} %{exitcode}\\n",
    ]
    for url in dict.fromkeys(url(bench) for url in urls):
        argv += ["--output", "/dev/null", url]
    return argv


def _asker(bench: Bench) -> Command:
    return bench.asker.place, _curl(bench, _NEAR, _FAR, _FAR_LARGE, _FAR_SECRET, _call)


def _from_node(at: int) -> Callable[[Bench], Command]:
    urls = (_published, _probe) if at == 0 else (_published,)
    return lambda bench: (bench.nodes[at].place, _curl(bench, *urls))


def _overlay(*words: str) -> Callable[[Bench], Command]:
    return lambda bench: (bench.nodes[0].overlay(PLAIN), list(words))


def _services(bench: Bench) -> Command:
    form = "{{.Name}} {{.Replicas}}"
    argv = ["docker", "service", "ls", "--filter", f"label={LABEL}", "--format", form]
    return bench.lab.manager.place, argv


def _says(word: str) -> Callable[[Bench], str]:
    return lambda bench: word


def _asked(
    name: str, question: str, ask: Callable[[Bench], Command], url: Callable[[Bench], str]
) -> Check:
    """A check that one URL of a curl answers."""
    return Check(name, question, ask, _says("answers"), _answer(url))


def _ports() -> list[Check]:
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
        lambda bench: (
            bench.asker.place,
            ["dig", "+time=2", "+tries=1", "+nosearch", "+short", f"tasks.{BACK}.{PLAIN}"],
        ),
        lambda bench: bench.back.addresses[PLAIN],
        _resolved,
    ),
    Check(
        "neighbours",
        "vxlan0 of bench-plain: the MAC address of back",
        _overlay("ip", "neigh", "show", "dev", "vxlan0"),
        lambda bench: bench.mac(),
        _neighbour,
    ),
    Check(
        "forwarding",
        "vxlan0 of bench-plain: the node where that MAC address is",
        _overlay("bridge", "fdb", "show", "dev", "vxlan0"),
        lambda bench: bench.back.node.address,
        _tunnel,
    ),
    Check(
        "idle",
        f"asker asks front by its name, waits {_IDLE_S:g} s, and asks again on the same connection",
        lambda bench: (bench.asker.place, ["python3", "-I", "-S", "-c", _IDLE]),
        _says("answers"),
        _held,
    ),
    _asked("call", "asker calls the address that its label says", _asker, _call),
    *_ports(),
    _asked("probe", "the node looks at the door where the door's label says", _from_node(0), _probe),
    Check(
        "scale",
        "front has all the tasks that it wants",
        _services,
        _says("all run"),
        _all_run(lambda name: name == FRONT),
    ),
    Check(
        "services",
        "each other service has all the tasks that it wants",
        _services,
        _says("all run"),
        _all_run(lambda name: name != FRONT),
    ),
)
CHECKS = {check.id: check for check in _CHECKS}


def examine(lab: Lab, *, look: str = "now", only: Collection[str] = ()) -> pd.DataFrame:
    """Ask every check's question once, side by side: a row a check.

    look         str     as the caller calls it; looks can be stacked and drawn side by side
    check        str     its short name
    question     str     what is asked
    node         str     the node that the command ran on
    place        str     where it ran: a node, a task's container, a namespace
    ok           bool    what was found is what was expected
    expected     str     what a healthy swarm answers
    found        str     what was answered, or a word for the failure
    argv         str     the command as one would type it; several checks may share one
    seconds      float   how long it ran

    Raises UsageError where the bench does not stand.
    """
    import pandas as pd

    bench = find(lab)
    wanted = {at: check for at, check in enumerate(_CHECKS) if not only or check.id in only}
    asked = [check.ask(bench) for check in wanted.values()]
    different = {(place.label, *argv): (place, argv) for place, argv in asked}
    captures = dict(zip(different, lab.run_all(different.values()), strict=True))
    rows = []
    for check, (place, argv) in zip(wanted.values(), asked, strict=True):
        capture = captures[place.label, *argv]
        expected, found = check.expected(bench), check.found(bench, capture)
        rows.append(
            {
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
        )
    return pd.DataFrame(rows, index=list(wanted))


def wait_until_green(lab: Lab, *, look: str = "now") -> pd.DataFrame:
    """Ask until no check is red, the red ones again and again; returns what `examine` does.

    Raises WaitTimeout with those that stay red.
    """
    import pandas as pd

    seen = examine(lab, look=look)

    def bad() -> tuple[bool, str]:
        nonlocal seen
        red = seen[~seen["ok"]]
        if len(red):
            again = examine(lab, look=look, only=set(red["check"]))
            seen = pd.concat([seen[seen["ok"]], again]).sort_index()
            red = seen[~seen["ok"]]
        return not len(red), "; ".join(f"{row.check}: {row.found}" for row in red.itertuples())

    lab.wait_for(
        "every check of the bench to be green",
        bad,
        seconds=_GREEN_SECONDS,
        hint=f"labkit reset --lab {lab.name} brings the fresh swarm back",
        every_s=0.5,
    )
    return seen
