"""Writes what the network tools print on a real swarm into tests/captures, for the parsers' tests.

Run by hand, on a lab that may be used up: every service and network in it is removed first.

    .venv/bin/labkit up --engine vm --lab cap26 --docker 26.1
    .venv/bin/python tests/captures/capture.py --lab cap26
    LABKIT_WRITE_GOLDENS=1 .venv/bin/pytest -q tests/unit/test_parsers.py -k captured
    git diff tests/captures          # read the goldens against the text by eye

The folder is the nodes' Docker version; a file is `<tool>--<place>-<case>.txt`: the argv on its first
line, then the standard output, unedited. The order matters: traffic comes first, so that counters,
neighbours and flows have something to show, and a tool is asked while what it shows goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit import swarm
from labkit.capture import Capture, argv_of
from labkit.parsers import CURL_FORMAT
from labkit.swarm import Lab, Place, Running, Task

HERE = Path(__file__).parent
SERVICE, OVERLAY, ENCRYPTED = "hello-a", "my-overlay", "my-secret"
PUBLISHED, TARGET = 5000, 3000
NOBODY = "no-such-service"
SIDE_BY_SIDE = 4
CURL = ("curl", "-s", "-m", "5", "-w", CURL_FORMAT)
_FOREIGN = re.compile(r"SWMTKN|https?://(?!\d|hello-a)|/home/|/root/|BEGIN [A-Z ]*KEY")


@dataclass(frozen=True)
class Wanted:
    """One file to write: its name, and the command whose output goes there."""

    name: str
    place: Place
    argv: tuple[str, ...]


def batched(wanted: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    """Cut a list into pieces."""
    for at in range(0, len(wanted), size):
        yield wanted[at : at + size]


def want(name: str, place: Place, command: str | Sequence[str]) -> Wanted:
    """Name what a command prints somewhere."""
    return Wanted(name, place, argv_of(command))


class Folder:
    """The captures of one Docker version."""

    def __init__(self, docker: str) -> None:
        self.path = HERE / docker
        self.path.mkdir(exist_ok=True)
        for old in self.path.glob("*.txt"):
            old.unlink()

    def write(self, name: str, capture: Capture) -> None:
        """Write one capture; refuse what must not leave the machine."""
        if capture.timed_out or capture.code == 127:
            raise SystemExit(f"{name}: did not run: {capture}")
        if found := _FOREIGN.search(capture.stdout):
            raise SystemExit(f"{name}: holds {found[0]!r}, which is not for publication")
        text = f"$ {json.dumps(list(capture.argv))}\n{capture.stdout}"
        (self.path / f"{name}.txt").write_text(text)
        print(f"{name}  ({len(capture.lines)} lines, exit {capture.code})", flush=True)

    def take(self, lab: Lab, wanted: Sequence[Wanted]) -> None:
        """Run commands, a few side by side, and write what they print."""
        for few in batched(wanted, SIDE_BY_SIDE):
            captures = lab.run_all([(item.place, item.argv) for item in few], timeout=110)
            for item, capture in zip(few, captures, strict=True):
                self.write(item.name, capture)


@dataclass(frozen=True)
class Spots:
    """The places that are looked at, on the node of one task and beside it."""

    a: Task
    b: Task
    node: Place
    ingress_sbox: Place
    overlay: Place
    lb: Place

    @property
    def namespaces(self) -> dict[str, Place]:
        """The four that iptables is read in."""
        return {
            "node": self.node,
            "sandbox": self.a.sandbox,
            "ingress_sbox": self.ingress_sbox,
            "lb": self.lb,
        }


def stand_up(lab: Lab) -> Spots:
    """Make the network and the service, and find the places."""
    # An emulated node is late now and then, above all with Docker 20.10; that is no reason to give its
    # tasks to others in the middle of it.
    lab.manager.run(["docker", "swarm", "update", "--dispatcher-heartbeat", "90s"]).check()
    lab.clean()
    lab.network(OVERLAY)
    lab.service(SERVICE, replicas=2, publish=f"{PUBLISHED}:{TARGET}", networks=[OVERLAY])
    a, b = lab.tasks(SERVICE)
    spots = Spots(
        a=a,
        b=b,
        node=a.node.place,
        ingress_sbox=a.node.netns("ingress_sbox"),
        overlay=a.node.overlay(OVERLAY),
        lb=a.node.load_balancer(OVERLAY),
    )

    def answers() -> tuple[bool, str]:
        inside = a.run([*CURL, f"http://{SERVICE}:{TARGET}/"])
        outside = spots.node.run([*CURL, f"http://127.0.0.1:{PUBLISHED}/"])
        return inside.stdout[:2] + outside.stdout[:2] == "HIHI", f"{inside}\n{outside}"

    swarm.wait_for("the service to answer by its name and its port", answers)
    return spots


# --- the tools, in the order in which they are run -----------------------------------------------


def names(spots: Spots) -> Iterator[Wanted]:
    """Ask the embedded DNS; every question has an end, for Docker 20.10 answers some with silence."""
    asked = {
        "service": SERVICE,
        "tasks": f"tasks.{SERVICE}",
        "nobody": NOBODY,
        # One with a dot is always asked upstream, of which there is none.
        "stranger": f"{NOBODY}.example",
    }
    for case, name in asked.items():
        patient = ["-timeout=2", "-retry=0"]
        yield want(f"nslookup--task-{case}", spots.a.place, ["nslookup", *patient, name])
        once = ["+time=2", "+tries=1"]
        yield want(f"dig--task-{case}", spots.a.place, ["dig", *once, name])
        yield want(f"dig--task-{case}-short", spots.a.place, ["dig", "+short", *once, name])
    address = spots.b.addresses[OVERLAY]
    yield want("nslookup--task-pointer", spots.a.place, ["nslookup", address])
    yield want("dig--task-pointer", spots.a.place, ["dig", *once, "-x", address])
    yield want("dig--task-aaaa", spots.a.place, ["dig", *once, SERVICE, "AAAA"])
    yield want("dig--task-answer-only", spots.a.place, ["dig", *once, "+noall", "+answer", SERVICE])
    # The same by the node's own, other, version of dig.
    yield want("dig--sandbox-tasks", spots.a.sandbox, ["dig", *once, "@127.0.0.11", f"tasks.{SERVICE}"])


def requests(spots: Spots) -> Iterator[Wanted]:
    """Ask the app, with success and without."""
    named = f"http://{SERVICE}:{TARGET}"
    published = f"http://127.0.0.1:{PUBLISHED}"
    task, node = spots.a.place, spots.node
    yield want("curl--task-ok", task, [*CURL, f"{named}/"])
    yield want("curl--task-whoami", task, [*CURL, f"{named}/whoami"])
    yield want("curl--task-whoami-plain", task, ["curl", "-s", f"{named}/whoami"])
    yield want("curl--task-headers", task, ["curl", "-si", f"{named}/whoami"])
    yield want("curl--task-kept-alive", task, [*CURL, f"{named}/whoami", f"{named}/whoami"])
    yield want("curl--task-not-found", task, [*CURL, f"{named}/nothing-here"])
    # Published ports exist on the ingress network only.
    yield want("curl--task-refused", task, [*CURL, f"http://{SERVICE}:{PUBLISHED}/"])
    # The article's puzzle: the rules in the tasks' namespaces drop this.
    there = spots.b.addresses["ingress"]
    yield want("curl--task-timed-out", task, [*CURL, f"http://{there}:{TARGET}/"])
    yield want("curl--task-nobody", task, [*CURL, f"http://{NOBODY}:{TARGET}/"])
    yield want("curl--node-whoami", node, [*CURL, f"{published}/whoami"])
    yield want("curl--node-refused", node, [*CURL, f"http://127.0.0.1:{PUBLISHED + 1}/"])
    yield want(
        "curl--ingress_sbox-whoami", spots.ingress_sbox, [*CURL, f"http://{there}:{TARGET}/whoami"]
    )


def echoes(spots: Spots) -> Iterator[Wanted]:
    """Ping what answers and what does not."""
    there = spots.b.addresses[OVERLAY]
    nowhere = re.sub(r"\d+$", "250", there)
    for where, place in (("task", spots.a.place), ("sandbox", spots.a.sandbox)):
        yield want(f"ping--{where}-ok", place, ["ping", "-c", "2", "-i", "0.2", there])
        yield want(f"ping--{where}-unreachable", place, ["ping", "-c", "2", "-W", "4", nowhere])
    yield want("ping--task-service", spots.a.place, ["ping", "-c", "1", SERVICE])
    yield want("ping--task-ingress", spots.a.place, ["ping", "-c", "1", spots.b.addresses["ingress"]])
    yield want("ping--task-no-route", spots.a.place, ["ping", "-c", "1", "-W", "2", "192.0.2.1"])


def interfaces(spots: Spots) -> Iterator[Wanted]:
    """Look at links, addresses, neighbours, routes and forwarding tables."""
    task, sandbox, overlay, sbox = spots.a.place, spots.a.sandbox, spots.overlay, spots.ingress_sbox
    there = spots.b.addresses[OVERLAY]
    spread = {
        "task": task,
        "sandbox": sandbox,
        "ingress_sbox": sbox,
        "overlay": overlay,
        "lb": spots.lb,
    }
    for where, place in spread.items():
        yield want(f"ip-addr--{where}-brief", place, "ip -br addr")
        for case, options in (("text", ""), ("json", "-j")):
            for what in ("addr", "neigh", "route"):
                yield want(f"ip-{what}--{where}-{case}", place, f"ip {options} {what}")
    yield want("ip-addr--node-text", spots.node, "ip addr")
    yield want("ip-addr--node-one-line", spots.node, "ip -o -4 addr")
    yield want("ip-neigh--sandbox-counted", sandbox, "ip -s neigh")
    yield want("ip-neigh--overlay-vxlan0", overlay, "ip neigh show dev vxlan0")
    yield want("ip-route--node-text", spots.node, "ip route")
    yield want("ip-route--task-get", task, ["ip", "route", "get", there])
    yield want("ip-link--task-json", task, "ip -j link")
    yield want("ip-link--node-json", spots.node, "ip -j link")
    forms = {
        "text": "",
        "json": "-j",
        "details": "-d",
        "details-json": "-d -j",
        "counted": "-s",
        "counted-json": "-s -j",
        "brief": "-br",
    }
    for case, options in forms.items():
        yield want(f"ip-link--overlay-{case}", overlay, f"ip {options} link")
    for case, options in (("text", ""), ("json", "-j"), ("counted", "-s")):
        command = f"bridge {options} fdb show dev vxlan0"
        yield want(f"bridge-fdb--overlay-vxlan0-{case}", overlay, command)
    yield want("bridge-fdb--overlay-all", overlay, "bridge fdb show")
    yield want("bridge-fdb--overlay-all-json", overlay, "bridge -j fdb show")


def rules(spots: Spots) -> Iterator[Wanted]:
    """Read iptables in four namespaces."""
    for where, place in spots.namespaces.items():
        for table in ("filter", "nat", "mangle"):
            of = [] if table == "filter" else ["-t", table]
            yield want(f"iptables--{where}-{table}-list", place, ["iptables", *of, "-nvL"])
            yield want(f"iptables--{where}-{table}-rules", place, ["iptables", *of, "-S"])
        yield want(f"iptables-save--{where}", place, ["iptables-save"])
    sandbox = spots.a.sandbox
    yield want("iptables--sandbox-exact-list", sandbox, "iptables -nvxL --line-numbers")
    yield want("iptables--sandbox-plain-list", sandbox, "iptables -nL")
    yield want("iptables--sandbox-counted-rules", sandbox, "iptables -v -S")
    yield want("iptables-save--sandbox-counted", sandbox, "iptables-save -c")


def flows(spots: Spots) -> Iterator[Wanted]:
    """Look at connections that are under way: see `transfers`."""
    for where, place in (("ingress_sbox", spots.ingress_sbox), ("lb", spots.lb)):
        yield want(f"ipvsadm--{where}", place, "ipvsadm -ln")
        yield want(f"ipvsadm--{where}-stats", place, "ipvsadm -ln --stats")
        yield want(f"ipvsadm--{where}-exact-stats", place, "ipvsadm -ln --stats --exact")
        yield want(f"ipvsadm--{where}-connections", place, "ipvsadm -lnc")
        yield want(f"conntrack--{where}", place, "conntrack -L")
    yield want("ipvsadm--sandbox-empty", spots.a.sandbox, "ipvsadm -ln")
    yield want("conntrack--sandbox", spots.a.sandbox, "conntrack -L")
    yield want("conntrack--ingress_sbox-extended", spots.ingress_sbox, "conntrack -L -o extended")
    yield want("ss--sandbox-listening", spots.a.sandbox, "ss -lunpt")
    yield want("ss--task-tcp", spots.a.place, "ss -tn")
    yield want("ss--sandbox-tcp-processes", spots.a.sandbox, "ss -tnp")
    yield want("ss--sandbox-time-wait", spots.a.sandbox, "ss -tn state time-wait")
    yield want("ss--sandbox-all", spots.a.sandbox, "ss -anut")


def transfers(spots: Spots) -> list[Running]:
    """Begin transfers that last for some seconds, by the name and through the routing mesh."""
    slow = ["curl", "-s", "-o", "/dev/null", "-m", "40", "--limit-rate", "20k"]
    begun = [
        place.start([*slow, f"{address}/bytes/50000000"])
        for place, address in (
            (spots.a.place, f"http://{SERVICE}:{TARGET}"),
            (spots.a.place, f"http://{SERVICE}:{TARGET}"),
            (spots.node, f"http://127.0.0.1:{PUBLISHED}"),
            (spots.node, f"http://127.0.0.1:{PUBLISHED}"),
        )
    ]

    def look() -> tuple[bool, str]:
        shown = [place.run("ipvsadm -lnc").stdout for place in (spots.lb, spots.ingress_sbox)]
        return all(text.count("ESTABLISHED") == 2 for text in shown), "\n".join(shown)

    swarm.wait_for("two transfers each by name and through the mesh", look, seconds=30)
    return begun


def packets(folder: Folder, spots: Spots) -> None:
    """Watch the wire during one request, from a clean neighbour table."""
    a, b = spots.a, spots.b
    there = b.addresses[OVERLAY]
    vxlan = ["udp", "port", "4789"]
    watched = [
        ("tcpdump--sandbox-request", a.sandbox, ["tcpdump", "-ni", "any", "tcp", "or", "arp"]),
        ("tcpdump--sandbox-request-e", a.sandbox, ["tcpdump", "-nei", "any", "tcp", "or", "arp"]),
        ("tcpdump--sandbox-names", a.sandbox, ["tcpdump", "-ni", "lo", "udp"]),
        ("tcpdump--overlay-arp-e", spots.overlay, ["tcpdump", "-nei", "br0", "arp"]),
        ("tcpdump--node-vxlan", spots.node, ["tcpdump", "-ni", "eth0", *vxlan]),
        ("tcpdump--node-vxlan-e", spots.node, ["tcpdump", "-nttei", "eth0", *vxlan]),
        ("tcpdump--node-vxlan-any", spots.node, ["tcpdump", "-ni", "any", *vxlan]),
    ]
    a.sandbox.run(["ip", "neigh", "flush", "all"])
    with contextlib.ExitStack() as stack:
        all_running = [stack.enter_context(place.watch(argv)) for _, place, argv in watched]
        a.run(["curl", "-s", f"http://{there}:{TARGET}/"]).check()
        a.run(["nslookup", "-timeout=2", "-retry=0", SERVICE]).check()
        a.run(["ping", "-c", "1", there]).check()
    for (name, _, _), running in zip(watched, all_running, strict=True):
        folder.write(name, running.result())


def encrypted(folder: Folder, lab: Lab) -> None:
    """Watch the wire of an encrypted overlay, and read the rules that it brings."""
    options = ["-d", "overlay", "--opt", "encrypted", ENCRYPTED]
    lab.manager.run(["docker", "network", "create", *options]).check()
    lab.service("hello-s", replicas=2, networks=[ENCRYPTED])
    a, b = lab.tasks("hello-s")
    there = b.addresses[ENCRYPTED]

    def answers() -> tuple[bool, str]:
        told = a.run([*CURL, f"http://{there}:{TARGET}/"])
        return told.stdout.startswith("HI"), str(told)

    swarm.wait_for("the encrypted overlay to carry a request", answers)
    node = a.node.place
    with node.watch(["tcpdump", "-ni", "eth0", "esp", "or", "udp", "port", "4789"]) as running:
        a.run(["ping", "-c", "2", "-i", "0.2", there]).check()
    folder.write("tcpdump--node-esp", running.result())
    folder.take(
        lab,
        [
            want("iptables--node-encrypted-filter-list", node, "iptables -nvL INPUT"),
            want("iptables--node-encrypted-mangle-list", node, "iptables -t mangle -nvL"),
            want("iptables--node-encrypted-mangle-rules", node, "iptables -t mangle -S"),
            want("iptables-save--node-encrypted", node, "iptables-save"),
        ],
    )


def main() -> None:
    """Take every capture on one lab."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", required=True, help="a running lab; what is in it is removed")
    lab = swarm.get(parser.parse_args().lab)
    folder = Folder(lab.docker)
    spots = stand_up(lab)
    folder.take(lab, list(names(spots)))
    folder.take(lab, list(requests(spots)))
    folder.take(lab, list(echoes(spots)))
    folder.take(lab, list(interfaces(spots)))
    folder.take(lab, list(rules(spots)))
    under_way = transfers(spots)
    folder.take(lab, list(flows(spots)))
    for running in under_way:
        running.result()
    packets(folder, spots)
    encrypted(folder, lab)
    lab.close()


if __name__ == "__main__":
    main()
