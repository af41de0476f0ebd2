"""Writes what the network tools print on a real swarm into tests/captures, for the parsers' tests.

Run by hand, on a lab that may be used up: every service and network in it is removed first.

    .venv/bin/labkit up --engine vm --lab cap26 --docker 26.1
    .venv/bin/python tests/captures/capture.py --lab cap26
    LABKIT_WRITE_GOLDENS=1 .venv/bin/pytest -q tests/unit/parsers -k golden
    git diff tests/captures          # read the goldens against the text by eye

The folder is the nodes' Docker version; a file is `<tool>--<place>-<case>.txt`, where the tool is the
name of its file in labkit/parsers (iptables-save belongs to iptables): the argv on the first line, then
the standard output, unedited. The order matters: traffic comes first, so that counters, neighbours and
flows have something to show, and a tool runs while what it shows goes on.
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
AT_ONCE = 4
CURL = ("curl", "-s", "-m", "5", "-w", CURL_FORMAT)
_FOREIGN = re.compile(r"SWMTKN|https?://(?!\d|hello-a)|/home/|/root/|BEGIN [A-Z ]*KEY")


@dataclass(frozen=True)
class Command:
    """One file to write: its name, and the command whose output goes there."""

    name: str
    place: Place
    argv: tuple[str, ...]


def batched(commands: Sequence[Command], size: int) -> Iterator[Sequence[Command]]:
    """Cut a list into pieces."""
    for at in range(0, len(commands), size):
        yield commands[at : at + size]


def command(name: str, place: Place, words: str | Sequence[str]) -> Command:
    """Return the command that fills the file of this name, at a place."""
    return Command(name, place, argv_of(words))


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

    def take(self, lab: Lab, commands: Sequence[Command]) -> None:
        """Run commands, a few at once, and write what they print."""
        for few in batched(commands, AT_ONCE):
            captures = lab.run_all([(item.place, item.argv) for item in few], timeout=110)
            for item, capture in zip(few, captures, strict=True):
                self.write(item.name, capture)


@dataclass(frozen=True)
class Places:
    """Where the commands run: on the node of one task, in its namespaces, and beside it."""

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


def stand_up(lab: Lab) -> Places:
    """Make the network and the service, and find the places."""
    # An emulated node is late now and then, above all with Docker 20.10; that is no reason to give its
    # tasks to others in the middle of it.
    lab.manager.run(["docker", "swarm", "update", "--dispatcher-heartbeat", "90s"]).check()
    lab.clean()
    lab.network(OVERLAY)
    lab.service(SERVICE, replicas=2, publish=f"{PUBLISHED}:{TARGET}", networks=[OVERLAY])
    a, b = lab.tasks(SERVICE)
    places = Places(
        a=a,
        b=b,
        node=a.node.place,
        ingress_sbox=a.node.netns("ingress_sbox"),
        overlay=a.node.overlay(OVERLAY),
        lb=a.node.load_balancer(OVERLAY),
    )

    def answers() -> tuple[bool, str]:
        inside = a.run([*CURL, f"http://{SERVICE}:{TARGET}/"])
        outside = places.node.run([*CURL, f"http://127.0.0.1:{PUBLISHED}/"])
        return inside.stdout[:2] + outside.stdout[:2] == "HIHI", f"{inside}\n{outside}"

    swarm.wait_for("the service to answer by its name and its port", answers)
    return places


# --- the tools, in the order in which they are run -----------------------------------------------


def names(places: Places) -> Iterator[Command]:
    """Ask the embedded DNS, with short timeouts: Docker 20.10 leaves some questions unanswered."""
    questions = {
        "service": SERVICE,
        "tasks": f"tasks.{SERVICE}",
        "nobody": NOBODY,
        # One with a dot is always asked upstream, of which there is none.
        "stranger": f"{NOBODY}.example",
    }
    for case, name in questions.items():
        nslookup = ["nslookup", "-timeout=2", "-retry=0"]
        yield command(f"nslookup--task-{case}", places.a.place, [*nslookup, name])
        once = ["+time=2", "+tries=1"]
        yield command(f"dig--task-{case}", places.a.place, ["dig", *once, name])
        yield command(f"dig--task-{case}-short", places.a.place, ["dig", "+short", *once, name])
    address = places.b.addresses[OVERLAY]
    yield command("nslookup--task-pointer", places.a.place, ["nslookup", address])
    yield command("dig--task-pointer", places.a.place, ["dig", *once, "-x", address])
    yield command("dig--task-aaaa", places.a.place, ["dig", *once, SERVICE, "AAAA"])
    yield command("dig--task-answer-only", places.a.place, ["dig", *once, "+noall", "+answer", SERVICE])
    # The same by the node's own, other, version of dig.
    yield command(
        "dig--sandbox-tasks", places.a.sandbox, ["dig", *once, "@127.0.0.11", f"tasks.{SERVICE}"]
    )


def requests(places: Places) -> Iterator[Command]:
    """Ask the app, with success and without."""
    named = f"http://{SERVICE}:{TARGET}"
    published = f"http://127.0.0.1:{PUBLISHED}"
    task, node = places.a.place, places.node
    yield command("curl--task-ok", task, [*CURL, f"{named}/"])
    yield command("curl--task-whoami", task, [*CURL, f"{named}/whoami"])
    yield command("curl--task-whoami-plain", task, ["curl", "-s", f"{named}/whoami"])
    yield command("curl--task-headers", task, ["curl", "-si", f"{named}/whoami"])
    yield command("curl--task-kept-alive", task, [*CURL, f"{named}/whoami", f"{named}/whoami"])
    yield command("curl--task-not-found", task, [*CURL, f"{named}/nothing-here"])
    # Published ports exist on the ingress network only.
    yield command("curl--task-refused", task, [*CURL, f"http://{SERVICE}:{PUBLISHED}/"])
    # The article's puzzle: the rules in the tasks' namespaces drop this.
    there = places.b.addresses["ingress"]
    yield command("curl--task-timed-out", task, [*CURL, f"http://{there}:{TARGET}/"])
    yield command("curl--task-nobody", task, [*CURL, f"http://{NOBODY}:{TARGET}/"])
    yield command("curl--node-whoami", node, [*CURL, f"{published}/whoami"])
    yield command("curl--node-refused", node, [*CURL, f"http://127.0.0.1:{PUBLISHED + 1}/"])
    yield command(
        "curl--ingress_sbox-whoami", places.ingress_sbox, [*CURL, f"http://{there}:{TARGET}/whoami"]
    )


def pings(places: Places) -> Iterator[Command]:
    """Ping what answers and what does not."""
    there = places.b.addresses[OVERLAY]
    nowhere = re.sub(r"\d+$", "250", there)
    for where, place in (("task", places.a.place), ("sandbox", places.a.sandbox)):
        yield command(f"ping--{where}-ok", place, ["ping", "-c", "2", "-i", "0.2", there])
        yield command(f"ping--{where}-unreachable", place, ["ping", "-c", "2", "-W", "4", nowhere])
    yield command("ping--task-service", places.a.place, ["ping", "-c", "1", SERVICE])
    yield command(
        "ping--task-ingress", places.a.place, ["ping", "-c", "1", places.b.addresses["ingress"]]
    )
    yield command("ping--task-no-route", places.a.place, ["ping", "-c", "1", "-W", "2", "192.0.2.1"])


def interfaces(places: Places) -> Iterator[Command]:
    """Look at links, addresses, neighbours, routes and forwarding tables."""
    task, sandbox, overlay, sbox = places.a.place, places.a.sandbox, places.overlay, places.ingress_sbox
    there = places.b.addresses[OVERLAY]
    by_name = {
        "task": task,
        "sandbox": sandbox,
        "ingress_sbox": sbox,
        "overlay": overlay,
        "lb": places.lb,
    }
    for where, place in by_name.items():
        yield command(f"ip-addr--{where}-brief", place, "ip -br addr")
        for case, options in (("text", ""), ("json", "-j")):
            for what in ("addr", "neigh", "route"):
                yield command(f"ip-{what}--{where}-{case}", place, f"ip {options} {what}")
    yield command("ip-addr--node-text", places.node, "ip addr")
    yield command("ip-addr--node-one-line", places.node, "ip -o -4 addr")
    yield command("ip-neigh--sandbox-counted", sandbox, "ip -s neigh")
    yield command("ip-neigh--overlay-vxlan0", overlay, "ip neigh show dev vxlan0")
    yield command("ip-route--node-text", places.node, "ip route")
    yield command("ip-route--task-get", task, ["ip", "route", "get", there])
    yield command("ip-link--task-json", task, "ip -j link")
    yield command("ip-link--node-json", places.node, "ip -j link")
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
        yield command(f"ip-link--overlay-{case}", overlay, f"ip {options} link")
    for case, options in (("text", ""), ("json", "-j"), ("counted", "-s")):
        argv = f"bridge {options} fdb show dev vxlan0"
        yield command(f"bridge-fdb--overlay-vxlan0-{case}", overlay, argv)
    yield command("bridge-fdb--overlay-all", overlay, "bridge fdb show")
    yield command("bridge-fdb--overlay-all-json", overlay, "bridge -j fdb show")


def rules(places: Places) -> Iterator[Command]:
    """Read iptables in four namespaces."""
    for where, place in places.namespaces.items():
        for table in ("filter", "nat", "mangle"):
            of = [] if table == "filter" else ["-t", table]
            yield command(f"iptables--{where}-{table}-list", place, ["iptables", *of, "-nvL"])
            yield command(f"iptables--{where}-{table}-rules", place, ["iptables", *of, "-S"])
        yield command(f"iptables-save--{where}", place, ["iptables-save"])
    sandbox = places.a.sandbox
    yield command("iptables--sandbox-exact-list", sandbox, "iptables -nvxL --line-numbers")
    yield command("iptables--sandbox-plain-list", sandbox, "iptables -nL")
    yield command("iptables--sandbox-counted-rules", sandbox, "iptables -v -S")
    yield command("iptables-save--sandbox-counted", sandbox, "iptables-save -c")


def flows(places: Places) -> Iterator[Command]:
    """Look at connections that are under way: see `transfers`."""
    for where, place in (("ingress_sbox", places.ingress_sbox), ("lb", places.lb)):
        yield command(f"ipvsadm--{where}", place, "ipvsadm -ln")
        yield command(f"ipvsadm--{where}-stats", place, "ipvsadm -ln --stats")
        yield command(f"ipvsadm--{where}-exact-stats", place, "ipvsadm -ln --stats --exact")
        yield command(f"ipvsadm--{where}-connections", place, "ipvsadm -lnc")
        yield command(f"conntrack--{where}", place, "conntrack -L")
    yield command("ipvsadm--sandbox-empty", places.a.sandbox, "ipvsadm -ln")
    yield command("conntrack--sandbox", places.a.sandbox, "conntrack -L")
    yield command("conntrack--ingress_sbox-extended", places.ingress_sbox, "conntrack -L -o extended")
    yield command("ss--sandbox-listening", places.a.sandbox, "ss -lunpt")
    yield command("ss--task-tcp", places.a.place, "ss -tn")
    yield command("ss--sandbox-tcp-processes", places.a.sandbox, "ss -tnp")
    yield command("ss--sandbox-time-wait", places.a.sandbox, "ss -tn state time-wait")
    yield command("ss--sandbox-all", places.a.sandbox, "ss -anut")


def transfers(places: Places) -> list[Running]:
    """Begin transfers that last for some seconds, by the name and through the routing mesh."""
    slow = ["curl", "-s", "-o", "/dev/null", "-m", "40", "--limit-rate", "20k"]
    begun = [
        place.start([*slow, f"{address}/bytes/50000000"])
        for place, address in (
            (places.a.place, f"http://{SERVICE}:{TARGET}"),
            (places.a.place, f"http://{SERVICE}:{TARGET}"),
            (places.node, f"http://127.0.0.1:{PUBLISHED}"),
            (places.node, f"http://127.0.0.1:{PUBLISHED}"),
        )
    ]

    def look() -> tuple[bool, str]:
        shown = [place.run("ipvsadm -lnc").stdout for place in (places.lb, places.ingress_sbox)]
        return all(text.count("ESTABLISHED") == 2 for text in shown), "\n".join(shown)

    swarm.wait_for("two transfers each by name and through the mesh", look, seconds=30)
    return begun


def packets(folder: Folder, places: Places) -> None:
    """Watch the wire during one request, from a clean neighbour table."""
    a, b = places.a, places.b
    there = b.addresses[OVERLAY]
    vxlan = ["udp", "port", "4789"]
    watched = [
        ("tcpdump--sandbox-request", a.sandbox, ["tcpdump", "-ni", "any", "tcp", "or", "arp"]),
        ("tcpdump--sandbox-request-e", a.sandbox, ["tcpdump", "-nei", "any", "tcp", "or", "arp"]),
        ("tcpdump--sandbox-names", a.sandbox, ["tcpdump", "-ni", "lo", "udp"]),
        ("tcpdump--overlay-arp-e", places.overlay, ["tcpdump", "-nei", "br0", "arp"]),
        ("tcpdump--node-vxlan", places.node, ["tcpdump", "-ni", "eth0", *vxlan]),
        ("tcpdump--node-vxlan-e", places.node, ["tcpdump", "-nttei", "eth0", *vxlan]),
        ("tcpdump--node-vxlan-any", places.node, ["tcpdump", "-ni", "any", *vxlan]),
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
        answer = a.run([*CURL, f"http://{there}:{TARGET}/"])
        return answer.stdout.startswith("HI"), str(answer)

    swarm.wait_for("the encrypted overlay to carry a request", answers)
    node = a.node.place
    with node.watch(["tcpdump", "-ni", "eth0", "esp", "or", "udp", "port", "4789"]) as running:
        a.run(["ping", "-c", "2", "-i", "0.2", there]).check()
    folder.write("tcpdump--node-esp", running.result())
    folder.take(
        lab,
        [
            command("iptables--node-encrypted-filter-list", node, "iptables -nvL INPUT"),
            command("iptables--node-encrypted-mangle-list", node, "iptables -t mangle -nvL"),
            command("iptables--node-encrypted-mangle-rules", node, "iptables -t mangle -S"),
            command("iptables-save--node-encrypted", node, "iptables-save"),
        ],
    )


def main() -> None:
    """Take every capture on one lab."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", required=True, help="a running lab; what is in it is removed")
    lab = swarm.get(parser.parse_args().lab)
    folder = Folder(lab.docker)
    places = stand_up(lab)
    folder.take(lab, list(names(places)))
    folder.take(lab, list(requests(places)))
    folder.take(lab, list(pings(places)))
    folder.take(lab, list(interfaces(places)))
    folder.take(lab, list(rules(places)))
    under_way = transfers(places)
    folder.take(lab, list(flows(places)))
    for running in under_way:
        running.result()
    packets(folder, places)
    encrypted(folder, lab)
    lab.close()


if __name__ == "__main__":
    main()
