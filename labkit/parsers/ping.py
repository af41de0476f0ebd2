"""`ping`: whether an address replies, and how fast; as a summary, or reply by reply."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._table import DECIMAL, NUMBER, check_address, classify, grammar
from labkit.schema import Column, Row, table

# Debian's ping is iputils'; BusyBox, which Alpine has, says `seq`, `round-trip` and `packets received`.
_WHEN = rf"(\[{DECIMAL}\] )?"
_FROM = rf"{_WHEN}(?:({NUMBER} bytes f|F)rom) ((?P<host>\S+) \((?P<named>[^)]+)\)|(?P<bare>\S+?)):?"
_LINES = grammar(
    head=(
        # A name with IPv6: `PING ip6.example(ip6.example (2001:db8::1)) 56 data bytes`.
        r"PING (?P<target>[^\s(]+) ?\(([^\s()]+ \((?P<inner>[^\s()]+)\)|(?P<address>[^\s()]+))\)"
        rf"( from \S+( \S+)?)?:? {NUMBER}(\({NUMBER}\))? (data bytes|bytes of data\.)"
    ),
    reply=(
        rf"{_FROM} (icmp_)?seq=(?P<sequence>{NUMBER})( ident={NUMBER})? ttl=(?P<ttl>{NUMBER})"
        rf"( time=(?P<rtt_ms>{DECIMAL}) ms)?( \([^()]*\))*"
    ),
    error=rf"{_FROM} icmp_seq=(?P<sequence>{NUMBER}) (?P<error>[A-Z].*)",
    waiting=rf"{_WHEN}(?P<error>no answer yet) for icmp_seq=(?P<sequence>{NUMBER})",
    count=(
        rf"(?P<transmitted>{NUMBER}) packets transmitted, (?P<received>{NUMBER}) (packets )?received,"
        rf"( \+?(?P<duplicates>{NUMBER}) duplicates,)?( \+{NUMBER} corrupted,)?"
        rf"( \+(?P<errors>{NUMBER}) errors,)?"
        rf" (?P<loss_pct>{DECIMAL})% packet loss(, time (?P<duration_ms>{NUMBER})ms)?"
    ),
    rtt=(
        rf"(rtt|round-trip) min/avg/max(/mdev)? = (?P<rtt_min_ms>{DECIMAL})/(?P<rtt_avg_ms>{DECIMAL})"
        rf"/(?P<rtt_max_ms>{DECIMAL})(/(?P<rtt_mdev_ms>{DECIMAL}))? ms(, .*)?"
    ),
    noise=r"--- \S+ ping statistics ---|pipe [0-9]+.*|ping: .*|\^C.*|WARNING: .*",
)
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
    Column("rtt_mdev_ms", "float", "how far the times differ; absent: no reply, and with BusyBox"),
)
def ping(text: str) -> Iterator[Row]:
    """Read the summary of `ping`, Debian's or BusyBox's: one row for each time that it ran.

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
    for kind, found, where in classify(text, _LINES, _EXPECTED):
        if kind == "head":
            if row:
                yield row
            address = found.pop("inner") or found["address"]
            row = found | {"address": check_address(address, where, "ping")}
        elif kind == "rtt":
            row |= found
        elif kind == "count":
            row |= found | {name: found[name] or 0 for name in ("duplicates", "errors")}
    if row:
        yield row


@table(
    Column("sequence", "int", "number of the request: from 1, BusyBox from 0"),
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
    for kind, found, where in classify(text, _LINES, _EXPECTED):
        if kind in ("reply", "error", "waiting"):
            address = found.get("named") or found.get("bare")
            if address:
                check_address(address, where, "ping -n")
            row = {name: found.get(name) for name in ("sequence", "ttl", "rtt_ms", "error")}
            yield row | {"address": address}
