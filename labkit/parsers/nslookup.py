"""`nslookup`: what a name server answers to one question."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import classify
from labkit.schema import Column, Row, table

_LINES = {
    "server": re.compile(r"Server:\s+(?P<server>\S+)"),
    "port": re.compile(r"Address:\s+\S+#(?P<server_port>\d+)"),
    "name": re.compile(r"Name:\s+(?P<name>\S+)"),
    "address": re.compile(r"Address:\s+(?P<answer>\S+)"),
    "pointer": re.compile(r"(?P<name>\S+)\s+name = (?P<answer>\S+)"),
    "alias": re.compile(r"(?P<name>\S+)\s+canonical name = (?P<answer>\S+)"),
    "failed": re.compile(r"\*\* server can't find (?P<name>[^\s:]+): (?P<status>\w+)"),
    "none": re.compile(r"\*\*\* Can't find (?P<name>[^\s:]+): No answer"),
    "timeout": re.compile(r";; (connection timed out; )?no servers could be reached"),
    "noise": re.compile(
        r"(Non-a|A)uthoritative answer.*|;; (communications error|Got|Truncated|Warning).*"
    ),
}


@table(
    Column("server", "str", "who answered"),
    Column("server_port", "int", "53, as a rule"),
    Column("name", "str", "the name that was asked for, as the server spells it"),
    Column("type", "str", "A, AAAA, CNAME, PTR; absent for a failure"),
    Column("answer", "str", "an address or a name; absent for a failure"),
    Column("status", "str", "NOERROR, NOANSWER, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT"),
)
def nslookup(text: str) -> Iterator[Row]:
    """Read `nslookup NAME`: one row per answer, and one for each failure.

    Example::

        $ nslookup -timeout=2 -retry=0 tasks.hello-a
        Server:         127.0.0.11
        Address:        127.0.0.11#53

        Non-authoritative answer:
        Name:   tasks.hello-a
        Address: 10.0.1.3
        Name:   tasks.hello-a
        Address: 10.0.1.4
    """
    server: Row = {}
    name = None
    for kind, found, _ in classify(text, _LINES, "a line of nslookup"):
        if kind == "server":
            server = found
        elif kind == "port":
            server |= found
        elif kind == "name":
            name = found["name"]
        elif kind == "address":
            family = "AAAA" if ":" in found["answer"] else "A"
            yield server | found | {"name": name, "type": family, "status": "NOERROR"}
        elif kind in ("pointer", "alias"):
            record = "PTR" if kind == "pointer" else "CNAME"
            yield server | found | {"type": record, "status": "NOERROR"}
        elif kind == "failed":
            yield server | found
        elif kind == "none":
            yield server | found | {"status": "NOANSWER"}
        elif kind == "timeout":
            yield server | {"status": "TIMEOUT"}
