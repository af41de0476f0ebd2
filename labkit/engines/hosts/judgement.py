"""Judges what was found on machines of one's own: one row for each thing that a swarm needs there.

Everything here is a pure function of what was found, so that it can be tested on recorded findings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network

from labkit.engines.hosts.facts import IMAGE_OF_APP, Facts
from labkit.engines.hosts.inventory import Host, Inventory
from labkit.engines.hosts.wire import Look, Wire, ports_of
from labkit.errors import EngineError

_LEAST_VERSION = (20, 10)
_MOST_APART_S = 2.0  # the labs put times of several machines on one line
_FIRST_OF_POOL = "10.0.0.0/16"  # Swarm's own pool is 10.0.0.0/8, handed out from its beginning
_LABS_OWN = "10.100.0.0 to 10.199.255.255"
_HEADERS = 50  # bytes that VXLAN takes of a packet


@dataclass(frozen=True)
class Row:
    """One thing that was looked at, from one machine to another, or of one machine."""

    source: str
    target: str
    what: str
    ok: bool
    seen: str
    remedy: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the row as `labkit doctor --hosts FILE --json` prints it."""
        return {
            "from": self.source,
            "to": self.target,
            "what": self.what,
            "ok": self.ok,
            "seen": self.seen,
            "remedy": "" if self.ok else self.remedy,
        }

    def __str__(self) -> str:
        where = f"{self.source} → {self.target}" if self.target else self.source
        return f"{where}: {self.what}: {self.seen}"


class NotFit(EngineError):
    """Machines that lack what a swarm of them needs; the message has the rows that failed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if not row.ok]
        lines = [f"{row}\n      remedy: {row.remedy}" for row in self.rows]
        super().__init__(
            f"{len(lines)} of what was looked at on the machines would keep a swarm from working:\n  "
            + "\n  ".join(lines),
            hint="mend that, then look again: labkit doctor --hosts FILE",
        )


def demand(rows: Sequence[Row]) -> None:
    """Raise NotFit where a row failed."""
    if not all(row.ok for row in rows):
        raise NotFit(rows)


# --- what the engines say ------------------------------------------------------------------------


def of_engines(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Row]:
    """Judge what each engine says of itself, and whether they are one swarm or none."""
    rows = []
    first = inventory.hosts[0].name
    for host in inventory.hosts:
        found = facts[host.name]
        rows += [_engine(host, found), _name(host, found)]
        if host.name != first:
            rows.append(_clock(first, host.name, facts))
    return [*rows, *_swarm(inventory, facts)]


def _engine(host: Host, found: Facts) -> Row:
    what, seen = "Docker engine", f"Docker {found.version}"
    if found.unfit:
        return Row(
            host.name, "", what, False, found.unfit, "take a machine with Docker on Linux, as root"
        )
    numbers = tuple(int(part) for part in found.version.split(".")[:2] if part.isdigit())
    fits = numbers >= _LEAST_VERSION
    least = ".".join(map(str, _LEAST_VERSION))
    return Row(host.name, "", what, fits, seen, f"Docker {least} or newer is needed there")


def _name(host: Host, found: Facts) -> Row:
    remedy = f"write `name: {found.hostname}` in the file: Swarm knows the machine by that name"
    return Row(
        host.name, "", "name", found.hostname == host.name, f"it calls itself {found.hostname}", remedy
    )


def _clock(first: str, name: str, facts: Mapping[str, Facts]) -> Row:
    apart = facts[name].clock_s - facts[first].clock_s
    error = facts[name].clock_error_s + facts[first].clock_error_s
    way = "ahead" if apart > 0 else "behind"
    seen = f"{abs(apart):.2f} s {way}, give or take {error:.2f} s"
    fits = abs(apart) - error <= _MOST_APART_S
    return Row(
        name, first, "clock", fits, seen, f"set the clock of {name}: sudo timedatectl set-ntp true"
    )


def _swarm(inventory: Inventory, facts: Mapping[str, Facts]) -> Iterator[Row]:
    """Judge whether the machines are all in no swarm, or all in the same one, and nobody else."""
    what = "swarm"
    inside = {host.name: facts[host.name].swarm for host in inventory.hosts}
    members = [name for name, found in inside.items() if found.inside]
    if not members:
        yield from (Row(name, "", what, True, "in none") for name in inside)
        return
    outside = [name for name in inside if name not in members]
    theirs = inside[members[0]].managers
    for host in inventory.hosts:
        found = inside[host.name]
        if not found.inside:
            seen = f"in none, and {', '.join(members)} in one"
            remedy = f"let it join that swarm, or let {', '.join(members)} leave it: docker swarm leave"
        elif not found.well:
            seen, remedy = f"in one, {found.state}", "docker info, there, tells what is the matter"
        elif found.managers != theirs:
            seen = f"in another one than {members[0]}"
            remedy = (
                f"take machines of one swarm, or let them leave it: docker swarm leave, on {host.name}"
            )
        elif found.manages != host.manager:
            role = "manager" if found.manages else "worker"
            seen, remedy = f"{role} of the one that runs", f"write `role: {role}` in the file"
        else:
            seen, remedy = "in the one that runs, which is used and stays", ""
        yield Row(host.name, "", what, not remedy, seen, remedy)
    if not outside:
        yield from _strangers(inside[inventory.hosts[0].name].members, inventory)


def _strangers(members: Mapping[str, str], inventory: Inventory) -> Iterator[Row]:
    """Refuse a swarm that has a node whose place labkit could not look into."""
    known = {host.name for host in inventory.hosts}
    for name in sorted(set(members.values()) - known):
        yield Row(
            inventory.hosts[0].name,
            name,
            "swarm",
            False,
            f"{name} is a node of it and is not in the file, so tasks may run where nobody can look",
            "add it to the file, or take another set of machines",
        )


def foreign_app(host: Host) -> Row:
    """Return the row for a machine that has another image with the name of the labs' app."""
    tag = IMAGE_OF_APP
    return Row(
        host.name,
        "",
        "image",
        False,
        f"it has an image {tag} that is not the labs' app, or another machine's",
        f"on {host.name}, name it otherwise: docker tag {tag} OTHER; docker image rm {tag}",
    )


def other_lab(host: Host, labs: Sequence[str]) -> Row:
    """Return the row for a machine that labs are on already: each could take the other's swarm away."""
    seen = f"lab {', '.join(labs)} is there already"
    return Row(host.name, "", "lab", False, seen, f"labkit down --lab {labs[0]}")


# --- what each machine has -----------------------------------------------------------------------


def of_machines(
    inventory: Inventory, facts: Mapping[str, Facts], looks: Mapping[str, Look]
) -> list[Row]:
    """Judge what each machine has: its kernel, its address, its networks beside Swarm's."""
    rows: list[Row] = []
    runs = facts[inventory.hosts[0].name].swarm.inside
    for host in inventory.hosts:
        look = looks[host.name]
        rows += [_address(host.name, looks), _socket(host.name, look), *_modules(host.name, look)]
        if not runs:
            rows.append(_pool(host.name, look, inventory.pool or _FIRST_OF_POOL))
        for other in inventory.hosts:
            if other is not host:
                rows.append(_covered(host.name, other.name, facts, looks))
    return rows


def _address(name: str, looks: Mapping[str, Look]) -> Row:
    look = looks[name]
    for other, found in looks.items():
        if other != name and found.address == look.address:
            seen = f"{look.address} is the address of {other} too"
            remedy = "write `address:` in the file, the one by which the others reach it"
            return Row(name, other, "address", False, seen, remedy)
    where = look.interface or "no interface of the machine"
    seen = (
        f"{look.address or 'none'} on {where}, MTU {look.mtu}"
        if look.interface
        else (f"{look.address or 'none'} is on {where}")
    )
    remedy = f"write `address:` in the file, one that `ip address` shows on {name}"
    return Row(name, "", "address", bool(look.interface), seen, remedy)


def _socket(name: str, look: Look) -> Row:
    seen = "/run/docker.sock is there" if look.socket else "there is no /run/docker.sock"
    remedy = "let the engine listen there too: the labs type docker on the machine itself"
    return Row(name, "", "Docker socket", look.socket, seen, remedy)


def _modules(name: str, look: Look) -> Iterator[Row]:
    missing = {module: seen for module, (there, seen) in look.modules.items() if not there}
    for module, seen in missing.items():
        remedy = f"on {name}: sudo modprobe {module} (kernel {look.kernel})"
        yield Row(name, "", f"kernel module {module}", False, seen, remedy)
    if not missing:
        seen = ", ".join(f"{module} {seen}" for module, (_, seen) in look.modules.items())
        yield Row(name, "", "kernel modules", True, seen)


def _pool(name: str, look: Look, pool: str) -> Row:
    what, wanted = "address overlap", IPv4Network(pool)
    taken = [f"{net} ({dev})" for dev, net in look.networks if _overlap(wanted, net)]
    if taken:
        seen = f"{', '.join(taken)}: Swarm would give out the same addresses, from {pool}"
        return Row(name, "", what, False, seen, "write another `pool:` in the file, 172.28.0.0/14 say")
    labs = [net for _, net in look.networks if _overlap_labs(net)]
    note = f"; labs 01 and 04 take a subnet of {_LABS_OWN}, where {', '.join(labs)} is" if labs else ""
    return Row(name, "", what, True, f"nothing there is in {pool}{note}")


def _covered(name: str, other: str, facts: Mapping[str, Facts], looks: Mapping[str, Look]) -> Row:
    """Judge whether a Docker network of a machine covers another machine's address."""
    what, address = "address overlap", looks[other].address
    for network, subnets in facts[name].networks.items():
        for subnet in subnets:
            net = ip_network(subnet)
            if address and net.version == 4 and ip_address(address) in net:
                seen = f"{address} of {other} is inside its network {network}, {subnet}"
                remedy = (
                    f"on {name}: make {network} anew with another subnet, or set default-address-pools"
                )
                return Row(name, other, what, False, seen, remedy)
    return Row(name, other, what, True, "no Docker network covers the other's address")


def _overlap(wanted: IPv4Network, network: str) -> bool:
    try:
        return wanted.overlaps(IPv4Network(network))
    except ValueError:
        return False


def _overlap_labs(network: str) -> bool:
    first, last = (int(ip_address(text)) for text in _LABS_OWN.split(" to "))
    try:
        net = IPv4Network(network)
    except ValueError:
        return False
    return int(net[0]) <= last and int(net[-1]) >= first


# --- what gets across ----------------------------------------------------------------------------


def of_wires(
    inventory: Inventory,
    facts: Mapping[str, Facts],
    looks: Mapping[str, Look],
    wires: Mapping[str, Wire],
) -> list[Row]:
    """Judge what gets from each machine to each other."""
    rows: list[Row] = []
    for host in inventory.hosts:
        if not facts[host.name].swarm.inside:
            rows += _taken(host, wires[host.name])
        for other in inventory.hosts:
            if other is not host:
                rows += _between(host, other, looks, wires)
    return rows


def _taken(host: Host, wire: Wire) -> Iterator[Row]:
    for port, why in wire.taken.items():
        if port in ports_of(host.manager):
            remedy = f"end the program that has it: sudo ss -tlnp sport = :{port.split('/')[0]}"
            yield Row(host.name, "", port, False, f"another program has this port: {why}", remedy)


def _between(
    host: Host, other: Host, looks: Mapping[str, Look], wires: Mapping[str, Wire]
) -> Iterator[Row]:
    """Judge one direction, port by port."""
    a, b = looks[host.name].address, looks[other.name].address
    sent, mine, theirs = wires[host.name].sent.get(b, {}), wires[host.name], wires[other.name]
    known = {look.address for look in looks.values()}
    arrived: dict[str, bool] = {}
    for port in ports_of(other.manager):
        said = sent.get(port, "it was not tried")
        if port.endswith("/tcp"):
            arrived[port] = not said
            stop = "" if not said else _tcp_stop(port, a, b, mine, theirs)
        else:
            arrived[port] = (a, b, port) in theirs.passed
            stop = "" if arrived[port] else _stop(port, a, b, mine, theirs, known)
        if port == "mtu":
            if arrived["4789/udp"]:
                yield _mtu(host, other, looks, arrived[port], said)
            continue
        what = "ESP, IP protocol 50" if port == "esp" else port
        seen = "it gets there" if arrived[port] else _told(stop, host.name, other.name, said)
        remedy = "" if arrived[port] else _remedy(port, stop, host.name, other.name, a, b)
        yield Row(host.name, other.name, what, arrived[port], seen, remedy)


_OUT, _ON_THE_WAY, _TRANSLATED = "out", "on the way", "translated"
_IN, _BACK, _ANSWER = "in", "back", "answer"


def _stop(port: str, a: str, b: str, mine: Wire, theirs: Wire, known: Collection[str]) -> str:
    """Return where a packet stopped that nobody answers."""
    if ("out", a, b, port, "probe") not in mine.seen:
        return _OUT
    if ("in", a, b, port, "probe") in theirs.seen:
        return _IN
    # Our word, from an address that none of the machines has: somebody translates on the way.
    if any(row[1:] == (b, port) and row[0] not in known for row in theirs.passed):
        return _TRANSLATED
    return _ON_THE_WAY


def _tcp_stop(port: str, a: str, b: str, mine: Wire, theirs: Wire) -> str:
    """Return where a connection stopped: its first packet, or the answer to that."""
    if ("out", a, b, port, "syn") not in mine.seen:
        return _OUT
    if ("in", a, b, port, "syn") not in theirs.seen:
        return _ON_THE_WAY
    if ("out", b, a, port, "synack") not in theirs.seen:
        return _IN
    return _ANSWER if ("in", b, a, port, "synack") in mine.seen else _BACK


def _told(stop: str, host: str, other: str, said: str) -> str:
    why = f" ({said})" if said else ""
    return {
        _OUT: f"the firewall of {host} stops it going out{why}",
        _ON_THE_WAY: f"it leaves {host} and does not come to {other}: something between them stops it",
        _TRANSLATED: f"it comes to {other} from another address: it is translated (NAT) on the way",
        _IN: f"it comes to {other}, and the firewall of {other} stops it coming in{why}",
        _BACK: f"it comes to {other}, whose answer is lost on the way back to {host}",
        _ANSWER: f"{other} answers, and the firewall of {host} stops the answer coming in",
    }[stop]


def _remedy(port: str, stop: str, host: str, other: str, a: str, b: str) -> str:
    number, _, proto = port.partition("/")
    match = "-p esp" if port == "esp" else f"-p {proto} --dport {number}"
    name = "ESP (IP protocol 50)" if port == "esp" else port
    if stop == _OUT:
        return f"on {host}, let {name} out to {b}: sudo iptables -I OUTPUT {match} -d {b} -j ACCEPT"
    if stop == _IN:
        return f"on {other}, let {name} in from {a}: sudo iptables -I INPUT {match} -s {a} -j ACCEPT"
    if stop == _ANSWER:
        back = match.replace("--dport", "--sport")
        return f"on {host}, let answers in from {b}: sudo iptables -I INPUT {back} -s {b} -j ACCEPT"
    if stop == _TRANSLATED:
        return f"take addresses by which {host} and {other} reach each other without NAT"
    return f"allow {name} between {a} and {b}, both ways, in the network's firewall or security group"


def _mtu(host: Host, other: Host, looks: Mapping[str, Look], arrived: bool, said: str) -> Row:
    mtu = looks[host.name].mtu
    if arrived:
        return Row(host.name, other.name, "MTU", True, f"packets of {mtu} bytes get there whole")
    theirs = looks[other.name].mtu
    differ = f", and {other.name} has an MTU of {theirs}" if theirs != mtu else ""
    why = f" ({said})" if said else ""
    return Row(
        host.name,
        other.name,
        "MTU",
        False,
        f"a packet of {mtu} bytes, the MTU of {looks[host.name].interface} on {host.name}, does not "
        f"get there whole{differ}{why}; VXLAN's are as long as that",
        f"give {looks[host.name].interface} on {host.name} the MTU of the way, or make overlays with "
        f"--opt com.docker.network.driver.mtu=N, {_HEADERS} less than the way's",
    )
