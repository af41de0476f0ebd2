"""`ss`: the sockets in one network namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import NUMBER, ParseError, classify, endpoint, grammar
from labkit.schema import Column, Row, table

_LINES = grammar(
    noise=r"(Netid|State|Recv-Q) .*|\s.*",
    socket=(
        r"((?P<netid>tcp|udp|raw|sctp|dccp|mptcp|icmp6?) +)?((?P<state>[A-Z][A-Z0-9-]+) +)?"
        rf"(?P<receive_queue>{NUMBER}) +(?P<send_queue>{NUMBER}) +(?P<local>\S+) +(?P<peer>\S+)"
        r"( +(?P<rest>.*))?"
    ),
)
_USER = re.compile(rf'users:\(\("(?P<process>[^"]*)",pid=(?P<pid>{NUMBER}),')


@table(
    Column("netid", "str", "tcp, udp"),
    Column("state", "str", "LISTEN, ESTAB, UNCONN, …; absent where ss was asked for one state"),
    Column("receive_queue", "int", "bytes; for LISTEN connections that wait to be accepted"),
    Column("send_queue", "int", "bytes; for LISTEN how many may wait"),
    Column("local_address", "str", "`0.0.0.0`, `*` and `::` are any"),
    Column("local_port", "int", "absent: any"),
    Column("peer_address", "str", "`0.0.0.0`, `*` and `::` are any"),
    Column("peer_port", "int", "absent: any"),
    Column("process", "str", "with -p: its name, the first if many share the socket"),
    Column("pid", "int", "process identifier, with -p"),
)
def ss(text: str, *, netid: str | None = None) -> Iterator[Row]:
    """Read `ss -lunpt`, `ss -tn` and their like, for TCP and UDP: one row per socket.

    ``netid`` is for `ss -t` or `ss -u`, which leave that column out.

    Example::

        $ ss -lunpt
        Netid State  Recv-Q Send-Q Local Address:Port  Peer Address:PortProcess
        udp   UNCONN 0      0         127.0.0.11:37875      0.0.0.0:*    users:(("dockerd",pid=32,fd=44))
        tcp   LISTEN 0      4096      127.0.0.11:46871      0.0.0.0:*    users:(("dockerd",pid=32,fd=45))
        tcp   LISTEN 0      128          0.0.0.0:3000       0.0.0.0:*    users:(("python3",pid=288,fd=3))
    """  # noqa: E501 (it is what ss prints)
    for kind, found, where in classify(text, _LINES, "a TCP or UDP socket as `ss -n` prints it"):
        if kind != "socket":
            continue
        local_address, local_port = endpoint(found.pop("local"), where, "ss -n")
        peer_address, peer_port = endpoint(found.pop("peer"), where, "ss -n")
        rest = found.pop("rest") or ""
        user = _USER.search(rest)
        if user is None and "users:" in rest:
            raise ParseError(*where, 'users:(("NAME",pid=NUMBER,…))')
        yield (
            found
            | (user.groupdict() if user else {})
            | {
                "netid": found["netid"] or netid,
                "local_address": local_address,
                "local_port": local_port,
                "peer_address": peer_address,
                "peer_port": peer_port,
            }
        )
