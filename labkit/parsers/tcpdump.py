"""`tcpdump`: the packets that pass an interface, and the frames inside VXLAN packets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import ParseError
from labkit.schema import Column, Row, table

_MAC = r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
_FRAME = re.compile(
    r"(?P<time> ?(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d+ |\d+\.\d+ )?"
    r"((?P<interface>\S+) +(?P<direction>In|Out|B|M|P)(?= |$) *)?"
    rf"((ifindex \d+ (?P<mac>{_MAC})? ?|(?P<source_mac>{_MAC}) > (?P<destination_mac>{_MAC}), )"
    r"(ethertype (?P<ethertype>[^ ,]+) \(0x[0-9a-f]+\)|802\.3), length (?P<frame_bytes>\d+): ?)?"
    r"(?P<packet>.*)"
)
_IP = re.compile(r"(IP6? )?(?P<source>[0-9a-f.:]+) > (?P<destination>[0-9a-f.:]+): (?P<info>.*)")
_ARP = re.compile(
    rf"(ARP, )?(?P<info>(Request who-has (?P<wanted>[\d.]+)( \({_MAC}\))? tell (?P<asker>[\d.]+)"
    rf"|Reply (?P<owner>[\d.]+) is-at {_MAC}|Announcement (?P<announced>[\d.]+)).*)"
)
# The first that fits names the protocol; with ports and none of these it is UDP.
_IN_IP = {
    "TCP": re.compile(r"Flags \["),
    "VXLAN": re.compile(r"VXLAN"),
    "ESP": re.compile(r"ESP\("),
    "ICMP6": re.compile(r"(HBH )?ICMP6"),
    "ICMP": re.compile(r"ICMP"),
    "IGMP": re.compile(r"igmp"),
    "SCTP": re.compile(r"sctp"),
    "GRE": re.compile(r"GRE"),
}
_NOISE = re.compile(
    r"\s+0x[0-9a-f]{4}: .*|(tcpdump|reading from file|Warning|listening on)\b.*"
    r"|\d+ packets? (captured|received by filter|dropped by kernel|dropped by interface)"
)
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
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line or _NOISE.fullmatch(line):
            continue
        frame = _frame(number, line)
        if outer is not None:
            if frame["time"] is None:
                yield outer | {f"inner_{name}": frame.get(name) for name in _INNER}
                outer = None
                continue
            yield outer
            outer = None
        if frame["time"] is None and frame["direction"] is None and frame["source"] is None:
            raise ParseError(number, line, "a packet as `tcpdump -n` prints it")
        if frame["vni"] is not None:
            outer = frame
        else:
            yield frame
    if outer is not None:
        yield outer


def _frame(number: int, line: str) -> Row:
    """Read one line of tcpdump: the columns that begin with no `inner_`."""
    found = _FRAME.fullmatch(line)
    if found is None:  # cannot be: its parts are optional, and it ends in .*
        raise ParseError(number, line, "a packet as `tcpdump -n` prints it")
    row = found.groupdict()
    packet = row.pop("packet")
    ethertype = row.pop("ethertype")
    mac = row.pop("mac")  # with -i any there is only one
    vni = re.match(r"VXLAN, .*\bvni (\d+)", packet.partition(": ")[2])
    row |= {
        "source_mac": row["source_mac"] or mac,
        "vni": vni[1] if vni else None,
        "source": None,
        "info": packet,
        "length_bytes": _payload_length(packet),
    }
    if row["time"]:
        row["time"] = row["time"].strip()
        row["time_s"] = _seconds(row["time"])
    if (arp := _ARP.fullmatch(packet)) and ethertype in (None, "ARP"):
        return row | {
            "protocol": "ARP",
            "source": arp["asker"] or arp["owner"] or arp["announced"],
            "destination": arp["wanted"],
            "info": arp["info"],
        }
    if ip := _IP.fullmatch(packet):
        return row | _ip_packet(ip["source"], ip["destination"], ip["info"])
    if ethertype in ("IPv4", "IPv6") or re.match(r"IP6? ", packet):
        raise ParseError(number, line, "one line per packet with numeric addresses: -n, without -v")
    word = re.match(r"\w+", packet)
    return row | {"protocol": word[0] if word else None}


def _seconds(time: str) -> float:
    """Read `22:13:20.5`, with or without a date before it, or the seconds that -tt prints."""
    parts = time.split()[-1].split(":")
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))


def _ip_packet(source: str, destination: str, info: str) -> Row:
    """Split addresses from ports (10.0.0.7.3000, fe80::1.546) and name the protocol."""
    row: Row = {"info": info}
    has_ports = False
    for name, text in (("source", source), ("destination", destination)):
        row[name] = text
        if re.fullmatch(r"(\d+\.){4}\d+|[^.]*:[^.]*\.\d+", text):
            has_ports = True
            row[name], _, row[f"{name}_port"] = text.rpartition(".")
    family = "IP6" if ":" in source else "IP"
    row["protocol"] = next(
        (name for name, pattern in _IN_IP.items() if pattern.match(info)),
        "UDP" if has_ports else family,
    )
    flags = re.match(r"Flags \[([^\]]*)\]", info)
    return row | {"tcp_flags": flags[1] if flags else None}


def _payload_length(packet: str) -> str | None:
    """Find the payload's length: `length 64`, or `(48)` behind a DNS message."""
    found = re.search(r"\blength (\d+)", packet) or re.search(r" \((\d+)\)$", packet)
    return found[1] if found else None
