"""`nslookup`: what a name server answers to one question."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._table import NUMBER, ParseError, Where, check_address, classify, grammar
from labkit.parsers.dig import NO_REPLY, NO_SERVER, why_no_server
from labkit.schema import Column, Row, table

_LINES = grammar(
    server=r"Server:\s+(?P<server>\S+)",
    # BusyBox has a colon before the port, and so brackets around an IPv6 address.
    port=rf"Address:\s+(\S+#|[0-9.]+:|\[\S+\]:)(?P<server_port>{NUMBER})",
    name=r"Name:\s+(?P<name>\S+)",
    # Old BusyBox numbers the addresses, and adds the name that each has.
    address=rf"Address( {NUMBER})?:\s+(?P<answer>\S+)( \S+)?",
    alias=r"(?P<name>\S+)\s+canonical name = (?P<answer>\S+)",
    pointer=r"(?P<name>\S+)\s+name = (?P<answer>\S+)",
    failed=r"\*\* server can't find (?P<name>\S+): (?P<status>[A-Z]+)",
    none=r"\*\*\* Can't find (?P<name>\S+): No answer",
    no_server=NO_SERVER,
    no_reply=NO_REPLY,
    noise=rf"(Non-a|A)uthoritative answer.*|Query #{NUMBER} completed in .*",
)


@table(
    Column("server", "str", "who answered"),
    Column("server_port", "int", "53, as a rule"),
    Column("name", "str", "the name that was asked for, as the server spells it"),
    Column("type", "str", "A, AAAA, CNAME, PTR; absent for a failure"),
    Column("answer", "str", "an address or a name; absent for a failure"),
    Column("status", "str", "NOERROR, NOANSWER, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT, UNREACHABLE"),
)
def nslookup(text: str) -> Iterator[Row]:
    """Read `nslookup NAME`, Debian's or BusyBox's: one row per answer, and one for each failure.

    UNREACHABLE means that word came back from the server's address: nobody listens there.

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
    name: str | None = None
    failures: list[str] = []
    waiting: Where | None = None  # a server that was named, and has neither answered nor failed yet
    for kind, found, where in classify(text, _LINES, "a line of nslookup"):
        if kind == "server":
            server, name, waiting = found, None, where
        elif kind == "port":
            server |= found
        elif kind == "name":
            name = found["name"]
        elif kind == "no_reply":
            failures.append(where[1])
        elif kind == "address" and name is None and waiting:
            # The server's own, which was printed without a port.
            check_address(found["answer"], where, "nslookup")
        elif kind != "noise":
            yield server | _answer(kind, found, name, failures, where)
            waiting = None
    if waiting:
        raise ParseError(*waiting, "an answer or a failure behind it")


def _answer(kind: str, found: Row, name: str | None, failures: list[str], where: Where) -> Row:
    """Return what one line says about the name that was asked for."""
    if kind == "address":
        if name is None:
            raise ParseError(*where, "a line `Name:` before it")
        address = check_address(found["answer"], where, "nslookup")
        family = "AAAA" if ":" in address else "A"
        return {"name": name, "type": family, "answer": address, "status": "NOERROR"}
    if kind in ("pointer", "alias"):
        return found | {"type": "PTR" if kind == "pointer" else "CNAME", "status": "NOERROR"}
    if kind == "failed":
        return found
    if kind == "none":
        return found | {"status": "NOANSWER"}
    return {"status": why_no_server(found["how"], failures)}
