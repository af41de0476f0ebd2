"""`dig`: what a name server answers to one question, in all detail."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import ParseError, classify
from labkit.schema import Column, Row, table

_LINES = {
    "header": re.compile(r";; ->>HEADER<<- opcode: \w+, status: (?P<status>\w+), id: \d+"),
    "timeout": re.compile(r";; (connection timed out; )?no servers could be reached"),
    "section": re.compile(r";; (?P<section>[A-Z]+) (SECTION|PSEUDOSECTION):"),
    "time": re.compile(r";; Query time: (?P<query_time_ms>\d+) msec"),
    "server": re.compile(r";; SERVER: (?P<server>[^#\s]+)#(?P<server_port>\d+).*"),
    "question": re.compile(r";(?P<question>[^;\s]\S*)\s+IN\s+(?P<question_type>[A-Z0-9]+)"),
    "noise": re.compile(r";.*"),
    "record": re.compile(
        r"(?P<name>\S+)\s+(?P<ttl_s>\d+)\s+(IN|CH|HS)\s+(?P<type>[A-Z0-9]+)\s+(?P<answer>.+)"
    ),
    "short": re.compile(r"(?P<answer>[0-9a-f.:]+|(\d+ )*\S+\.|\".*\")"),
}


@table(
    Column("question", "str", "the name asked for, with its final dot"),
    Column("question_type", "str", "A, PTR, …"),
    Column("status", "str", "NOERROR, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT"),
    Column("name", "str", "the name that the answer is for"),
    Column("ttl_s", "int", "seconds that the answer may be kept"),
    Column("type", "str", "A, AAAA, CNAME, PTR"),
    Column("answer", "str", "absent: no answer"),
    Column("server", "str", "who answered"),
    Column("server_port", "int", "53, as a rule"),
    Column("query_time_ms", "int", "from the question to its answer"),
)
def dig(text: str) -> Iterator[Row]:
    """Read `dig NAME`, also +short or +noall +answer: one row per answer.

    A question without an answer gives one row as well. With +short there are only type and answer.

    Example::

        $ dig +noall +answer hello-a
        hello-a.                600     IN      A       10.0.1.2
    """
    query: Row = {}
    answers: list[Row] = []
    section = "ANSWER"
    for kind, found, where in classify(text, _LINES, "a line of dig"):
        if kind in ("header", "timeout"):
            if query:
                yield from (query | answer for answer in answers or [{}])
            query, answers = {"status": "TIMEOUT"} | found, []
        elif kind == "section":
            section = found["section"]
        elif kind in ("time", "server", "question"):
            query |= found
        elif kind == "record" and section == "ANSWER":
            answers.append(found)
        elif kind == "short":
            if query:
                raise ParseError(*where, "a record: name, ttl, class, type, data")
            answers.append(found | {"type": _family(found["answer"])})
    if query or answers:
        yield from (query | answer for answer in answers or [{}])


def _family(answer: str) -> str | None:
    """Name the type of an answer that +short prints alone; None when it is no address."""
    if not re.fullmatch(r"[0-9a-f.:]+[0-9a-f:]", answer):
        return None
    return "AAAA" if ":" in answer else "A"
