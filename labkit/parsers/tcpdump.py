"""`tcpdump`: the packets that pass an interface, and the frames inside VXLAN packets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import (
    ADDRESS,
    NUMBER,
    ParseError,
    Where,
    check_address,
    grammar,
    is_address,
    lines,
    match,
    numeric,
)
from labkit.schema import Column, Row, table

_MAC = r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
_ETHERTYPE = r"(?P<ethertype>[^(),]+?) \((?P<number>0x[0-9a-f]+)\)"
_FRAME = re.compile(
    r"(?P<time> ?(?:[0-9]{4}-[0-9]{2}-[0-9]{2} )?[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,9} "
    r"|[0-9]{1,15}\.[0-9]{1,9} )?"
    r"((?P<interface>\S+) +(?P<direction>In|Out|B|M|P)(?= |$) *)?"
    rf"((ifindex [0-9]+ (?P<mac>{_MAC})? ?|(?P<source_mac>{_MAC}) > (?P<destination_mac>{_MAC}), )"
    rf"(ethertype {_ETHERTYPE}|802\.3), length (?P<frame_bytes>{NUMBER}): ?)?"
    r"(?P<packet>.*)"
)
_VLAN = re.compile(
    r"vlan [0-9]+, p [0-9]+,(?: DEI,)? ethertype (?P<ethertype>[^(),]+?)(?: \(0x[0-9a-f]+\))?, "
    r"(?P<packet>.*)"
)
_HOST = "[0-9a-f.:]{2,51}"  # an address with a port, or without
_PORT = re.compile("[0-9]{1,5}")
_IP = re.compile(rf"(IP6? )?(?P<source>{_HOST}) > (?P<destination>{_HOST}): (?P<info>.*)")
_ARP = re.compile(
    r"(ARP, )?(Ethernet \(len 6\), IPv4 \(len 4\), )?"
    rf"(?P<info>(Request who-has (?P<wanted>{ADDRESS})( \({_MAC}\))? tell (?P<asker>{ADDRESS})"
    rf"|Reply (?P<owner>{ADDRESS}) is-at {_MAC}( \(oui [^)]*\))?|Announcement (?P<announced>{ADDRESS}))"
    rf"(, length {NUMBER})?)"
)
# How tcpdump begins what it says of a packet between IP addresses. The first that fits names the
# protocol, and what none fits is refused.
_WITH_PORTS = grammar(
    TCP=r"Flags \[.*|tcp [0-9].*|\[\|tcp\].*",
    # Port 8472 is Linux's own for VXLAN; tcpdump takes it for OTV, whose header is the same.
    VXLAN=rf"VXLAN, ([^,]*, )*?vni (?P<vni>{NUMBER})|OTV, .*, instance (?P<instance>{NUMBER})",
    UDP=(
        rf"(UDP|NTPv[0-9]|BOOTP/DHCP|SYSLOG|RIPv[12]|RADIUS|Geneve|L2TP|SIP)\b.*|\[\|udp\].*"
        # No word at all is DNS: `4660+ A? hello-a. (25)`, or its beginning where -s cut the packet.
        rf"|[0-9]{{1,5}}[-+*|%$]* (.*\({NUMBER}\)|.*\[\|domain\].*)|(dhcp6|isakmp|TFTP|\[\|domain\]).*"
    ),
    SCTP=r"sctp .*",
)
_WITHOUT_PORTS = grammar(
    ESP=r"ESP\(.*",
    AH=r"AH\(.*",
    ICMP6=r"(HBH )?ICMP6, .*|\[\|icmp6\].*",
    ICMP=r"ICMP .*|\[\|icmp\].*",
    IGMP=r"igmp .*",
    SCTP=r"sctp .*",
    GRE=r"GREv[01].*",
    PIM=r"PIMv.*",
    OSPF=r"OSPFv.*",
    VRRP=r"VRRPv.*",
    # The later fragments of a packet, which have no ports.
    TCP=r"tcp",
    UDP=r"udp",
    IP=r"ip-proto-[0-9]+",
)
# Frames of other protocols, which -e names by their ethertype.
_OTHER = re.compile(r"(?P<protocol>STP|LLDP|LACPv[12]|CDPv[12]|EAPOL|LLC|MPLS|PPPoE)\b.*")
_NOISE = re.compile(
    r"\s+0x[0-9a-f]{4}: .*|(tcpdump|reading from file|Warning|listening on)\b.*"
    r"|[0-9]+ packets? (captured|received by filter|dropped by kernel|dropped by interface)"
)
_EXPECTED = "a packet as `tcpdump -n` prints it"
# What is said of a frame inside VXLAN: all but when and where it passed.
_INNER = (
    "source_mac",
    "destination_mac",
    "protocol",
    "source",
    "source_port",
    "destination",
    "destination_port",
    "tcp_flags",
    "length_bytes",
    "frame_bytes",
    "info",
)


@table(
    Column("time", "str", "as printed"),
    Column("time_s", "float", "seconds since midnight; with -tt since 1970"),
    Column("interface", "str", "with -i any"),
    Column("direction", "str", "In, Out, B(roadcast), M(ulticast), P (for others)"),
    Column("source_mac", "str", "with -e"),
    Column("destination_mac", "str", "with -e; absent with -i any"),
    Column("protocol", "str", "TCP, UDP, ICMP, ICMP6, ARP, VXLAN, ESP, IGMP, …"),
    Column("source", "str", "IP address; for ARP the one that speaks"),
    Column("source_port", "int", "absent: the protocol has no ports"),
    Column("destination", "str", "IP address; for an ARP request the one that is asked for"),
    Column("destination_port", "int", "absent: the protocol has no ports"),
    Column("tcp_flags", "str", "`S`, `S.`, `P.`, `F.`, `R`, `.`"),
    Column("length_bytes", "int", "of the payload, as tcpdump counts it"),
    Column("frame_bytes", "int", "of the whole frame, with -e"),
    Column("vni", "int", "VXLAN network identifier"),
    Column("info", "str", "what tcpdump says behind the addresses"),
    Column("inner_source_mac", "str", "of the frame in VXLAN, with -e"),
    Column("inner_destination_mac", "str", "of the frame in VXLAN, with -e"),
    Column("inner_protocol", "str", "as `protocol`, of the frame in VXLAN"),
    Column("inner_source", "str", "as `source`, of the frame in VXLAN"),
    Column("inner_source_port", "int", "as `source_port`, of the frame in VXLAN"),
    Column("inner_destination", "str", "as `destination`, of the frame in VXLAN"),
    Column("inner_destination_port", "int", "as `destination_port`, of the frame in VXLAN"),
    Column("inner_tcp_flags", "str", "as `tcp_flags`, of the frame in VXLAN"),
    Column("inner_length_bytes", "int", "of the payload in VXLAN"),
    Column("inner_frame_bytes", "int", "of the whole frame in VXLAN, with -e"),
    Column("inner_info", "str", "as `info`, of the frame in VXLAN"),
)
def tcpdump(text: str) -> Iterator[Row]:
    """Read `tcpdump -n`, also with -e, -t…, or -i any: one row per packet.

    A VXLAN packet and the frame in it, which tcpdump prints on a line of its own, are one row.
    Not for -v, -x, -X or -A, which spread a packet over many lines.

    Example::

        $ tcpdump -ni any tcp or arp
        19:39:54.315271 eth1  Out ARP, Request who-has 10.0.1.4 tell 10.0.1.3, length 28
        19:39:54.316340 eth1  In  ARP, Reply 10.0.1.4 is-at 02:42:0a:00:01:04, length 28
        19:39:54.316976 eth1  Out IP 10.0.1.3.54576 > 10.0.1.4.3000: Flags [S], seq 205209204, \
win 64860, options [mss 1410,sackOK,TS val 949529390 ecr 0,nop,wscale 7], length 0
    """
    outer: Row | None = None
    timed = False
    for where in lines(text):
        if _NOISE.fullmatch(where[1]):
            continue
        frame = _frame(where)
        inner = frame["time"] is None and frame["direction"] is None
        if outer is not None and inner:
            yield outer | {f"inner_{name}": frame.get(name) for name in _INNER}
            outer = None
            continue
        if outer is not None:
            yield outer
            outer = None
        if inner and (timed or frame["source"] is None):
            raise ParseError(*where, _EXPECTED)
        timed = timed or frame["time"] is not None
        if frame["vni"] is not None:
            outer = frame
        else:
            yield frame
    if outer is not None:
        yield outer


def _frame(where: Where) -> Row:
    """Read one line of tcpdump: the columns that begin with no `inner_`."""
    found = _FRAME.fullmatch(where[1])
    if found is None:  # cannot be: its parts are optional, and it ends in .*
        raise ParseError(*where, _EXPECTED)
    row = found.groupdict()
    packet, ethertype, number, mac = (row.pop(key) for key in ("packet", "ethertype", "number", "mac"))
    for _ in range(2):  # a VLAN may be in another one
        if vlan := _VLAN.fullmatch(packet):
            packet, ethertype = vlan["packet"], vlan["ethertype"]
    row |= {
        "source_mac": row["source_mac"] or mac,  # with -i any there is only one
        "vni": None,
        "source": None,
        "info": packet,
        "length_bytes": _payload_length(packet),
    }
    if row["time"]:
        row["time"] = row["time"].strip()
        row["time_s"] = _seconds(row["time"])
    if ethertype in (None, "ARP") and (arp := _ARP.fullmatch(packet)):
        return row | _arp_packet(arp, where)
    if ethertype in (None, "IPv4", "IPv6") and (ip := _IP.fullmatch(packet)):
        return row | _ip_packet(ip["source"], ip["destination"], ip["info"], where)
    if ethertype not in (None, "ARP", "IPv4", "IPv6"):
        return row | {"protocol": number if ethertype.startswith("Unknown") else ethertype}
    other = _OTHER.fullmatch(packet)
    if ethertype is not None or other is None:
        raise ParseError(
            *where,
            "one line per packet with numeric addresses and a protocol that is known",
            hint=f"{numeric('tcpdump -n')}; -v, -x and -A spread a packet over many lines",
        )
    return row | {"protocol": other["protocol"]}


def _seconds(time: str) -> float:
    """Read `22:13:20.5`, with or without a date before it, or the seconds that -tt prints."""
    parts = time.split()[-1].split(":")
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))


def _arp_packet(arp: re.Match[str], where: Where) -> Row:
    """Return who asks or speaks, and who is asked for."""
    source = arp["asker"] or arp["owner"] or arp["announced"]
    for address in (source, arp["wanted"]):
        if address is not None:
            check_address(address, where, "tcpdump -n")
    return {"protocol": "ARP", "source": source, "destination": arp["wanted"], "info": arp["info"]}


def _ip_packet(source: str, destination: str, info: str, where: Where) -> Row:
    """Split addresses from ports (10.0.0.7.3000, fe80::1.546) and name the protocol."""
    row: Row = {"info": info}
    has_ports = False
    for name, text in (("source", source), ("destination", destination)):
        address, _, port = text.rpartition(".")
        if _PORT.fullmatch(port) and int(port) <= 65_535 and is_address(address):
            has_ports = True
            row[name], row[f"{name}_port"] = address, port
        else:
            row[name] = check_address(text, where, "tcpdump -n")
    expected = "a packet of a protocol that is known"
    protocol, found = match(where, info, _WITH_PORTS if has_ports else _WITHOUT_PORTS, expected)
    if protocol == "VXLAN":
        row["vni"] = found["vni"] or found["instance"]
    flags = re.match(r"Flags \[([^\]]*)\]", info)
    return row | {"protocol": protocol, "tcp_flags": flags[1] if flags else None}


def _payload_length(packet: str) -> str | None:
    """Find the payload's length: `length 64`, `(48)` behind a DNS message, or `tcp 33` with -q."""
    found = (
        re.search(rf"\blength ({NUMBER})(?![0-9])", packet, re.ASCII)
        or re.search(rf" \(({NUMBER})\)$", packet)
        or re.search(rf": tcp ({NUMBER})$", packet)
    )
    return found[1] if found else None
