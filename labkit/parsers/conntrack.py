"""`conntrack`: the flows that one network namespace keeps in mind, before and after NAT."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import classify
from labkit.schema import Column, Row, table

_TUPLE = (
    r"src=(?P<{0}source>\S+) dst=(?P<{0}destination>\S+)( type=\d+ code=\d+ id=\d+)?"
    r"( sport=(?P<{0}source_port>\d+) dport=(?P<{0}destination_port>\d+))?"
    r"( packets=(?P<{0}packets>\d+) bytes=(?P<{0}bytes>\d+))?"
)
_LINES = {
    "flow": re.compile(
        r"(ipv[46] +\d+ )?(?P<protocol>[a-z]\S*) +\d+ ((?P<timeout_s>\d+) )?((?P<state>[A-Z]\S*) )?"
        + _TUPLE.format("")
        + r"(?P<unreplied> \[UNREPLIED\])? "
        + _TUPLE.format("reply_")
        + r"(?P<assured> \[ASSURED\])?( \[(HW_)?OFFLOAD\])?( mark=(?P<mark>\d+))?( .*)?"
    ),
    "noise": re.compile(r"conntrack v.*"),
}


@table(
    Column("protocol", "str", "tcp, udp, icmp"),
    Column("timeout_s", "int", "seconds until the entry goes"),
    Column("state", "str", "ESTABLISHED, …; absent for udp, icmp"),
    Column("source", "str", "as the first packet had it"),
    Column("destination", "str", "as the first packet had it"),
    Column("source_port", "int", "as the first packet had it; absent for icmp"),
    Column("destination_port", "int", "as the first packet had it; absent for icmp"),
    Column("reply_source", "str", "as a reply has it, which shows the NAT"),
    Column("reply_destination", "str", "as a reply has it, which shows the NAT"),
    Column("reply_source_port", "int", "as a reply has it; absent for icmp"),
    Column("reply_destination_port", "int", "as a reply has it; absent for icmp"),
    Column("unreplied", "bool", "no reply was seen"),
    Column("assured", "bool", "kept when the table is full"),
    Column("mark", "int", "the connection's mark, which rules may set and match"),
    Column("packets", "int", "from the source, where accounting is on"),
    Column("bytes", "int", "from the source, where accounting is on"),
    Column("reply_packets", "int", "back to the source, where accounting is on"),
    Column("reply_bytes", "int", "back to the source, where accounting is on"),
)
def conntrack(text: str) -> Iterator[Row]:
    """Read `conntrack -L`, also with -o extended: one row per flow.

    Example::

        $ conntrack -L
        tcp      6 298 ESTABLISHED src=10.0.1.3 dst=10.0.1.2 sport=48898 dport=3000 src=10.0.1.3 \
dst=10.0.1.5 sport=3000 dport=48898 [ASSURED] mark=0 use=1
        tcp      6 73 TIME_WAIT src=10.0.1.3 dst=10.0.1.2 sport=59382 dport=3000 src=10.0.1.4 \
dst=10.0.1.5 sport=3000 dport=59382 [ASSURED] mark=0 use=1
    """
    for kind, found, _ in classify(text, _LINES, "a flow as `conntrack -L` prints it"):
        if kind == "flow":
            yield found | {name: bool(found[name]) for name in ("unreplied", "assured")}
