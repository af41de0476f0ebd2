"""`conntrack`: the flows that one network namespace keeps in mind, before and after NAT."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._table import NUMBER, check_address, classify, grammar
from labkit.schema import Column, Row, table


def _tuple(prefix: str) -> str:
    """Return the pattern of one direction of a flow; its groups begin with a prefix."""
    return (
        rf"src=(?P<{prefix}source>\S+) dst=(?P<{prefix}destination>\S+)"
        rf"( type={NUMBER} code={NUMBER} id={NUMBER})?"
        rf"( sport=(?P<{prefix}source_port>{NUMBER}) dport=(?P<{prefix}destination_port>{NUMBER}))?"
        rf"( packets=(?P<{prefix}packets>{NUMBER}) bytes=(?P<{prefix}bytes>{NUMBER}))?"
    )


_LINES = grammar(
    flow=(
        rf"(ipv[46] +{NUMBER} )?(?P<protocol>[a-z]\S*) +{NUMBER} ((?P<timeout_s>{NUMBER}) )?"
        rf"((?P<state>[A-Z]\S*) )?{_tuple('')}(?P<unreplied> \[UNREPLIED\])? {_tuple('reply_')}"
        rf"(?P<assured> \[ASSURED\])?( \[(HW_)?OFFLOAD\])?( mark=(?P<mark>{NUMBER}))?"
        r"( (?!mark=|[sd]port=)[a-z-]+=\S+)*"
    ),
    noise=r"conntrack v.*",
)
_ADDRESSES = ("source", "destination", "reply_source", "reply_destination")


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
    for kind, found, where in classify(text, _LINES, "a flow as `conntrack -L` prints it"):
        if kind == "flow":
            for name in _ADDRESSES:
                check_address(found[name], where, "conntrack -L")
            yield found | {name: bool(found[name]) for name in ("unreplied", "assured")}
