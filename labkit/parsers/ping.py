"""`ping`: whether an address replies, and how fast; as a summary, or reply by reply."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import classify
from labkit.schema import Column, Row, table

_FROM = r"(\[[\d.]+\] )?(?:(\d+ bytes f|F)rom) ((?P<host>\S+) \((?P<named>[^)]+)\)|(?P<bare>\S+?)):?"
_LINES = {
    "head": re.compile(r"PING (?P<target>\S+) ?\((?P<address>[^)]+)\).*"),
    "reply": re.compile(
        rf"{_FROM} icmp_seq=(?P<sequence>\d+)( ident=\d+)? ttl=(?P<ttl>\d+)"
        r"( time=(?P<rtt_ms>[\d.]+) ms)?( \((?P<note>[^)]*)\))?"
    ),
    "error": re.compile(rf"{_FROM} icmp_seq=(?P<sequence>\d+) (?P<error>.+)"),
    "waiting": re.compile(r"(\[[\d.]+\] )?(?P<error>no answer yet) for icmp_seq=(?P<sequence>\d+)"),
    "count": re.compile(
        r"(?P<transmitted>\d+) packets transmitted, (?P<received>\d+) received,"
        r"( \+(?P<duplicates>\d+) duplicates,)?( \+\d+ corrupted,)?( \+(?P<errors>\d+) errors,)?"
        r" (?P<loss_pct>[\d.]+)% packet loss(, time (?P<duration_ms>\d+)ms)?"
    ),
    "rtt": re.compile(
        r"rtt min/avg/max/mdev = (?P<rtt_min_ms>[\d.]+)/(?P<rtt_avg_ms>[\d.]+)"
        r"/(?P<rtt_max_ms>[\d.]+)/(?P<rtt_mdev_ms>[\d.]+) ms.*"
    ),
    "noise": re.compile(r"--- \S+ ping statistics ---|pipe \d+.*|ping: .*|\^C.*|WARNING: .*"),
}
_EXPECTED = "a line of ping"


@table(
    Column("target", "str", "as it was typed"),
    Column("address", "str", "what it was resolved to"),
    Column("transmitted", "int", "requests; absent: ping was ended before its summary"),
    Column("received", "int", "replies, each request's first"),
    Column("duplicates", "int", "further replies to the same request"),
    Column("errors", "int", "`Destination Host Unreachable` and the like"),
    Column("loss_pct", "float", "requests without a reply, in percent"),
    Column("duration_ms", "int", "from the first request to the end"),
    Column("rtt_min_ms", "float", "the shortest time to a reply; absent: no reply"),
    Column("rtt_avg_ms", "float", "the mean; absent: no reply"),
    Column("rtt_max_ms", "float", "the longest; absent: no reply"),
    Column("rtt_mdev_ms", "float", "how far the times differ, as ping counts it; absent: no reply"),
)
def ping(text: str) -> Iterator[Row]:
    """Read the summary of `ping`: one row.

    Example::

        $ ping -c 2 -i 0.2 10.0.1.4
        PING 10.0.1.4 (10.0.1.4) 56(84) bytes of data.
        64 bytes from 10.0.1.4: icmp_seq=1 ttl=64 time=3.26 ms
        64 bytes from 10.0.1.4: icmp_seq=2 ttl=64 time=1.41 ms

        --- 10.0.1.4 ping statistics ---
        2 packets transmitted, 2 received, 0% packet loss, time 201ms
        rtt min/avg/max/mdev = 1.405/2.334/3.264/0.929 ms
    """
    row: Row = {}
    for kind, found, _ in classify(text, _LINES, _EXPECTED):
        if kind in ("head", "rtt"):
            row |= found
        elif kind == "count":
            row |= found | {name: found[name] or 0 for name in ("duplicates", "errors")}
    if row:
        yield row


@table(
    Column("sequence", "int", "number of the request, from 1"),
    Column("address", "str", "who replied, or who reported the error"),
    Column("ttl", "int", "hops left"),
    Column("rtt_ms", "float", "absent: no reply"),
    Column("error", "str", "`Destination Host Unreachable`, `no answer yet`, …"),
)
def ping_replies(text: str) -> Iterator[Row]:
    """Read the single replies of `ping`: one row per reply or error.

    Example::

        $ ping -c 2 -i 0.2 10.0.1.4
        PING 10.0.1.4 (10.0.1.4) 56(84) bytes of data.
        64 bytes from 10.0.1.4: icmp_seq=1 ttl=64 time=3.26 ms
        64 bytes from 10.0.1.4: icmp_seq=2 ttl=64 time=1.41 ms
    """
    for kind, found, _ in classify(text, _LINES, _EXPECTED):
        if kind in ("reply", "error", "waiting"):
            address = found.get("named") or found.get("bare")
            row = {name: found.get(name) for name in ("sequence", "ttl", "rtt_ms", "error")}
            yield row | {"address": address}
