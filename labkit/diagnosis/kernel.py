"""What the kernels' tables say against what the manager says: neighbours, FDB, IPVS, nat, marks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from labkit import parsers
from labkit.diagnosis.finding import Finding
from labkit.diagnosis.firewalls import without_gossip
from labkit.diagnosis.seen import (
    FORWARDS,
    LINKS,
    MARKS,
    RULES,
    SERVERS,
    TIMEOUTS,
    listening,
    vxlan_end,
)

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.diagnosis.declared import Declared, Service
    from labkit.diagnosis.seen import Argv, Namespace, NodeSeen
    from labkit.swarm import Task

    Seen = Mapping[str, NodeSeen]

_IDLE_S = 900  # for how long IPVS remembers a silent TCP connection, as the kernel begins
_DNS = "127.0.0.11"  # where Docker's DNS listens in each task


def neighbours(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find what an overlay of a node lacks or has wrong of the tasks on other nodes."""
    macs = {name: _macs(read) for here in seen.values() for name, read in here.tasks.items()}
    shut = without_gossip(seen)
    for here in seen.values():
        for space in here.overlays:
            for task in _elsewhere(said, here, space.network):
                mac = macs.get(task.name, {}).get(task.addresses[space.network])
                # Where the task is just ending there is none.
                if mac and _knows(seen, here, task, space.network, shut):
                    yield from _neighbour(seen, here, space, task, mac)


def _neighbour(seen: Seen, here: NodeSeen, space: Namespace, task: Task, mac: str) -> Iterator[Finding]:
    """Compare what an overlay has of a task with the task's own MAC address, and with its node."""
    name, address = here.node.name, task.addresses[space.network]
    inside = f"in the overlay's namespace of {name}"
    if (there := space.neighbours.get(address)) != mac:
        yield Finding(
            what=f"{name} has another MAC address for {task.name}"
            if there
            else f"{name} has no MAC address for {task.name}",
            where=f"{name}, {space.network}",
            evidence=f"ip neigh: {address} lladdr {there or 'not there'}; the task has {mac}",
            why="a node answers the ARP requests of its tasks by this table, right or wrong",
            remedy=f"{inside}: ip neigh replace {address} lladdr {mac} dev vxlan0 nud permanent",
            lab="05",
            fault="wrong-neighbour",
        )
    elif not _may_lead(seen, node := space.forwarding.get(mac, ""), task.node.name):
        right = vxlan_end(seen, task.node.name) or task.node.address
        yield Finding(
            what=f"{name} sends what is for {task.name} to another node"
            if node
            else f"{name} does not know the node of {task.name}",
            where=f"{name}, {space.network}",
            evidence=f"bridge fdb: {mac} dst {node or 'not there'}; the task is on {task.node.name}, "
            f"{right}",
            why="VXLAN wraps a packet for the node that the FDB names, right or wrong",
            remedy=f"{inside}: bridge fdb replace {mac} dev vxlan0 self permanent dst {right}",
            lab="05",
            fault="stale-fdb",
        )


def _may_lead(seen: Seen, address: str, name: str) -> bool:
    """Whether what VXLAN sends to an address may come to a node.

    One that no node has may be translated on the way, unless others have another one for the node.
    """
    if not address or address in seen[name].ends:
        return bool(address)
    return not vxlan_end(seen, name) and not any(address in here.ends for here in seen.values())


def gossip(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find nodes that have heard nothing of the tasks of another one."""
    shut = without_gossip(seen)
    for here in seen.values():
        for other in seen.values():
            if {here.node.name, other.node.name} & shut or not other.read:
                continue  # the rule that stops it is told, or why nothing is known of the other
            tasks = {
                task.name: space.network
                for space in here.overlays
                for task in _elsewhere(said, here, space.network)
                if task.node.name == other.node.name and _unheard(seen, here, task, space.network)
            }
            if tasks:
                named = ", ".join(f"{task} on {network}" for task, network in tasks.items())
                yield Finding(
                    what=f"{here.node.name} has heard nothing of what runs on {other.node.name}",
                    where=here.node.name,
                    evidence=f"neither a neighbour nor an FDB entry for {named}",
                    why="the nodes tell each other by gossip, on port 7946, which tasks they have",
                    remedy="open port 7946, TCP and UDP, between the two",
                    lab="05",
                    fault="gossip-dropped",
                )


def _unheard(seen: Seen, here: NodeSeen, task: Task, network: str) -> bool:
    """Whether a node's overlay knows neither a task elsewhere nor anything else of its node."""
    return any(
        task.addresses[network] not in space.neighbours
        and seen[task.node.name].ends.isdisjoint(space.forwarding.values())
        for space in here.overlays
        if space.network == network
    )


def _knows(seen: Seen, here: NodeSeen, task: Task, network: str, shut: set[str]) -> bool:
    """Whether a task is a node's own, or the node ought to have all of it right.

    Of the nodes in `shut`, whose firewall stops gossip, the others forget one thing after another, and
    so do these nodes of the others: the rule is the finding, and no row that is lacking. Where nothing
    was heard without such a rule, `gossip` tells.
    """
    if task.node.name == here.node.name:
        return True
    return not {here.node.name, task.node.name} & shut and not _unheard(seen, here, task, network)


def _elsewhere(said: Declared, here: NodeSeen, network: str) -> list[Task]:
    return [
        task for task in said.running if task.node.name != here.node.name and network in task.addresses
    ]


def _macs(read: Mapping[Argv, Capture]) -> dict[str, str]:
    """Return the MAC addresses of a task by its IPv4 addresses."""
    links = parsers.ip_link(read[LINKS].text)
    macs = dict(zip(links["interface"], links["mac"], strict=True))
    rows = parsers.ip_addr(read[LINKS].text)
    rows = rows[rows["family"] == "inet"]
    pairs = zip(rows["address"], rows["interface"], strict=True)
    return {address: macs[interface] for address, interface in pairs}


def balancers(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find virtual IPs that a node sends to others than the tasks of their service."""
    shut = without_gossip(seen)
    for here in seen.values():
        for space in here.balancers:
            marks, servers = _marks(space.read[MARKS].text), _servers(space.read[SERVERS])
            for service in said.services:
                virtual = service.virtual.get(space.network)
                if virtual is None or virtual not in marks:
                    continue
                tasks = [t for t in said.tasks(service.name) if space.network in t.addresses]
                heard = {
                    task.addresses[space.network]
                    for task in tasks
                    if _knows(seen, here, task, space.network, shut)
                }
                every = {task.addresses[space.network] for task in tasks}
                chosen = servers.get(marks[virtual], set())
                dead = chosen - every
                if here.node.name in shut or not said.knows_all(service.name):
                    dead = set()  # it hears of no end either; or it may be the task that is not known
                yield from _balanced(here, space, service, chosen, dead, heard - chosen)


def _balanced(
    here: NodeSeen,
    space: Namespace,
    service: Service,
    chosen: set[str],
    dead: set[str],
    missing: set[str],
) -> Iterator[Finding]:
    listed = ", ".join(sorted(chosen)) or "nobody"
    told = {
        "dead-backend": (dead, "to {}, where no task of it is", "remove it there: ipvsadm -d"),
        "no-backend": (missing, "not to {}, a task of it", "add it there: ipvsadm -a … -m"),
    }
    for fault, (addresses, words, remedy) in told.items():
        if addresses:
            who = ", ".join(sorted(addresses))
            yield Finding(
                what=f"on {here.node.name}, requests for {service.name} on {space.network} go "
                + words.format(who),
                where=space.place.label,
                evidence=f"ipvsadm -ln, real servers for {service.virtual[space.network]}: {listed}",
                why="who asks by the name gets the virtual IP, and the kernel of its own node chooses",
                remedy=f"{remedy}; an update of the service makes the list anew, too",
                lab="07",
                fault=fault,
            )


def _marks(saved: str) -> dict[str, int]:
    """Return the mark that a balancer gives to what is for each virtual IP."""
    found = re.findall(r"-A INPUT -d ([0-9.]+)/32 -j MARK --set-xmark (0x[0-9a-f]+)/", saved)
    return {address: int(mark, 16) for address, mark in found}


def _servers(listed: Capture) -> dict[int, set[str]]:
    """Return the real servers by mark; one of weight 0 gets nothing new, its task is ending."""
    rows = listed.table.dropna(subset=["fwmark", "destination"])
    rows = rows[rows["weight"] > 0]
    found: dict[int, set[str]] = {}
    for mark, address in zip(rows["fwmark"], rows["destination"], strict=True):
        found.setdefault(int(mark), set()).add(address)
    return found


def balancing(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find balancers that forget early, and a routing mesh that does not forward."""
    for here in seen.values():
        for space in here.balancers:
            words = space.read[TIMEOUTS].text.split()[-3:]
            if words[0].isdigit() and int(words[0]) < _IDLE_S:
                yield Finding(
                    what=f"{here.node.name} forgets a balanced connection of {space.network} after "
                    f"{words[0]} s of silence",
                    where=space.place.label,
                    evidence=f"ipvsadm -l --timeout: tcp tcpfin udp: {' '.join(words)}",
                    why=f"the kernel's own is {_IDLE_S} s, and apps keep connections for longer",
                    remedy=f"ipvsadm --set {_IDLE_S} 120 300 there, or keep-alive in the app",
                    lab="14",
                    fault="ipvs-timeout",
                )
            if FORWARDS in space.read and space.read[FORWARDS].text.strip() == "0":
                yield Finding(
                    what=f"the routing mesh of {here.node.name} passes nothing on",
                    where=space.place.label,
                    evidence="net.ipv4.ip_forward = 0",
                    why="what comes for a published port is forwarded there to the tasks",
                    remedy="sysctl -w net.ipv4.ip_forward=1 in ingress_sbox; look who sets it to 0",
                    lab="02",
                    fault="forwarding-off",
                )


def marks(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find nodes that send what is on an encrypted overlay as it is."""
    for here in seen.values():
        secret = [space.network for space in here.overlays if said.by_name[space.network].encrypted]
        secret = [network for network in secret if _elsewhere(said, here, network)]
        if not secret:
            continue
        lines = here.read[RULES].lines
        found = sum(f"--dport {said.vxlan_port} " in line and "-j MARK" in line for line in lines)
        if found < len(secret):
            yield Finding(
                what=f"{here.node.name} does not mark what is to be encrypted",
                where=here.node.name,
                evidence=f"{found} rules in mangle OUTPUT that mark UDP port {said.vxlan_port}; "
                f"encrypted overlays there: {', '.join(secret)}",
                why="only what has the mark is encrypted, and the other nodes drop what is not",
                remedy="put the rules back, or let the tasks of these networks start anew on that node",
                lab="09",
                fault="unmarked",
            )


def published(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find published ports that a node leads nowhere, and that lead to a port where no app listens."""
    shut = without_gossip(seen)
    for service in said.services:
        tasks = said.tasks(service.name)
        for port in service.ports:
            for here in seen.values():
                known = port.ingress and _is_known(seen, here, tasks, shut)
                if known and port.published not in here.doors:
                    yield Finding(
                        what=f"{here.node.name} does not lead port {port.published} to {service.name}",
                        where=here.node.name,
                        evidence=f"nat, DOCKER-INGRESS: no rule for --dport {port.published}",
                        why="each node takes a published port and leads it into the routing mesh",
                        remedy="put the rule back as the other nodes have it, or publish the port anew",
                        lab="02",
                        fault="nat-flushed",
                    )
            deaf = [
                name
                for name, sockets in listening(seen, tasks).items()
                if port.protocol in ("tcp", "udp")  # of which `ss -lntu` tells
                and (port.protocol, port.target) not in sockets
            ]
            if deaf:
                yield Finding(
                    what=f"{service.name} publishes port {port.published} for port {port.target}, at "
                    "which no app listens",
                    where=service.name,
                    evidence=f"ss -lntu in {', '.join(deaf)}: nothing at {port.protocol} {port.target}",
                    why="the mesh changes the port to the one that the service names",
                    remedy=f"docker service update --publish-rm {port.target} --publish-add published="
                    f"{port.published},target=PORT {service.name}, with the app's own port",
                    lab="12",
                    fault="wrong-target",
                )


def _is_known(seen: Seen, here: NodeSeen, tasks: Sequence[Task], shut: set[str]) -> bool:
    """Whether a node has a task of a published service, or has heard of one."""
    return bool(here.read) and any(
        task.ingress and _knows(seen, here, task, task.ingress, shut) for task in tasks
    )


def names(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find tasks whose questions for names do not come to Docker's DNS."""
    overlays = {task.name: bool(task.addresses) for task in said.running}
    for here in seen.values():
        for task, read in here.tasks.items():
            if overlays.get(task) and f"--to-destination {_DNS}:" not in read[RULES].text:
                yield Finding(
                    what=f"{task} knows no names: its questions do not come to Docker's DNS",
                    where=f"{task} on {here.node.name}",
                    evidence=f"no rule in the table nat of its namespace that leads to {_DNS}",
                    why=f"the name server is asked at {_DNS} port 53, and listens at another port",
                    remedy="let the task be made anew: docker service update --force",
                    lab="06",
                    fault="names-lost",
                )
