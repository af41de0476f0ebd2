"""Faults of the load balancers: IPVS and the namespaces that it works in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, curl
from labkit.faults.fault import SHORT_S, Fault, Step
from labkit.faults.testbed import FRONT, PLAIN, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture


def _shorten_ipvs(bench: Bench) -> list[Step]:
    """Return the step that lowers IPVS's time-out of an idle TCP connection from 900 s to 1 s."""
    place = bench.nodes[0].load_balancer(PLAIN)
    argv = ["ipvsadm", "--set"]
    return [Step(place, [*argv, "1", "120", "300"], [*argv, "900", "120", "300"])]


def _ipvs_timeouts(bench: Bench) -> list[Capture]:
    return [bench.nodes[0].load_balancer(PLAIN).run(["ipvsadm", "-l", "--timeout"])]


def _service_of_front(bench: Bench) -> str:
    """Return the mark by which IPVS on node1 knows front; raises SwarmError where it does not."""
    saved = bench.nodes[0].load_balancer(PLAIN).run(["ipvsadm", "-S", "-n"]).check().text
    found = re.search(rf"-a -f (\d+) -r {re.escape(bench.front.addresses[PLAIN])}:", saved)
    if not found:
        raise SwarmError("IPVS on node1 does not know front", hint="labkit fault heal")
    return found[1]


def _add_dead(bench: Bench) -> list[Step]:
    """Return the step by which IPVS on node1 sends each second request for front to nobody."""
    nobody = bench.front.addresses[PLAIN].rpartition(".")[0] + ".250"
    rest = ["-f", _service_of_front(bench), "-r", nobody]
    place = bench.nodes[0].load_balancer(PLAIN)
    return [Step(place, ["ipvsadm", "-a", *rest, "-m"], ["ipvsadm", "-d", *rest])]


def _remove_only(bench: Bench) -> list[Step]:
    """Return the step by which IPVS on node1 has nobody for front."""
    rest = ["-f", _service_of_front(bench), "-r", bench.front.addresses[PLAIN]]
    place = bench.nodes[0].load_balancer(PLAIN)
    return [Step(place, ["ipvsadm", "-d", *rest], ["ipvsadm", "-a", *rest, "-m"])]


def _servers_and_curl(bench: Bench) -> list[Capture]:
    """List what IPVS on node1 sends to whom, and ask front by its address and by its name."""
    urls = [f"http://{host}:{TASK_PORT}/" for host in (bench.front.addresses[PLAIN], FRONT)]
    return [
        bench.nodes[0].load_balancer(PLAIN).run(["ipvsadm", "-L", "-n"]),
        *(bench.asker.run(curl(url, SHORT_S)) for url in urls),
    ]


def _forward_nothing(bench: Bench) -> list[Step]:
    """Return the step by which the routing mesh of node3 passes nothing on."""
    argv = ["sysctl", "-w"]
    place = bench.nodes[2].load_balancer("ingress")
    return [Step(place, [*argv, "net.ipv4.ip_forward=0"], [*argv, "net.ipv4.ip_forward=1"])]


def _forwarding_and_curl(bench: Bench) -> list[Capture]:
    """Show whether ingress_sbox of node3 forwards, and ask the published port there."""
    return [
        bench.nodes[2].load_balancer("ingress").run(["sysctl", "-n", "net.ipv4.ip_forward"]),
        bench.nodes[2].run(curl(f"http://127.0.0.1:{bench.port}/", SHORT_S)),
    ]


FAULTS = (
    Fault(
        id="ipvs-timeout",
        level=2,
        title="node1 forgets a balanced connection of bench-plain after one second of silence",
        complaint="The first query is quick. After a coffee break the same connection is dead",
        remedy="Give IPVS on node1 its 900 seconds again; or let the app keep its connections alive",
        source="moby/moby#31208, moby/moby#37822",
        red=("idle",),
        steps=_shorten_ipvs,
        evidence=_ipvs_timeouts,
        shows=lambda seen: seen[0].text.split()[-3:] == ["1", "120", "300"],
    ),
    Fault(
        id="dead-backend",
        level=2,
        title="IPVS on node1 has a real server for front that does not exist",
        complaint="Every second request to front fails, and there is only one task of it",
        remedy="Remove the real server that no task has: ipvsadm -d, in the balancer of node1",
        source="moby/moby#33790, moby/moby#28564, moby/moby#41668",
        red=("name",),
        steps=_add_dead,
        evidence=_servers_and_curl,
        shows=lambda seen: ".250:" in seen[0].text and seen[1].ok,
        either=("idle", "call"),
        says={"name": "^[123] of 4"},
    ),
    Fault(
        id="no-backend",
        level=2,
        title="IPVS on node1 has no real server for front",
        complaint="By its address front answers. By its name it refuses, and the name is right",
        remedy="Add the task's address as the real server again: ipvsadm -a, in the balancer of node1",
        source="moby/moby#41668",
        red=("name", "idle", "call"),
        steps=_remove_only,
        evidence=_servers_and_curl,
        shows=lambda seen: seen[1].ok and not seen[2].ok,
        says={"name": "^0 of 4"},
    ),
    Fault(
        id="forwarding-off",
        level=3,
        title="the kernel does not forward in the namespace ingress_sbox of node3",
        complaint="In our container of a hosting company the published port of one node is dead",
        remedy="Set net.ipv4.ip_forward to 1 in ingress_sbox of node3",
        source="moby/moby#38723, portainer/portainer#7736",
        red=("port-node3",),
        steps=_forward_nothing,
        evidence=_forwarding_and_curl,
        shows=lambda seen: seen[0].text.strip() == "0" and not seen[1].ok,
    ),
)
