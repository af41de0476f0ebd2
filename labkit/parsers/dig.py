"""`dig`: what a name server answers to one question, in all detail."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._table import (
    NUMBER,
    ParseError,
    Where,
    check_address,
    classify,
    grammar,
    is_address,
)
from labkit.schema import Column, Row, table

NO_SERVER = r";; (?P<how>connection timed out; )?no servers could be reached"
"""What dig and nslookup print at the end of a question that no server answered."""
NO_REPLY = r";; (communications error|UDP setup|Connection|Got|Truncated|Warning)( .*)?"
"""What they print about each try."""
_LINES = grammar(
    header=rf";; ->>HEADER<<- opcode: \w+, status: (?P<status>\w+), id: {NUMBER}",
    no_server=NO_SERVER,
    no_reply=NO_REPLY,
    section=r";; (?P<section>[A-Z]+) (SECTION|PSEUDOSECTION):",
    time=rf";; Query time: (?P<query_time_ms>{NUMBER}) msec",
    server=rf";; SERVER: (?P<server>[^#\s]+)#(?P<server_port>{NUMBER}).*",
    question=r";(?P<question>[^;\s]\S*)\s+(IN|CH|HS)\s+(?P<question_type>[A-Z0-9]+)",
    # What dig says is known by these: figures that do not fit them must not become noise.
    noise=r";(?!; (->>HEADER|Query time|SERVER:))(;.*| .*|)",
    record=(
        rf"(?P<name>\S+)\s+(?P<ttl_s>{NUMBER})\s+(IN|CH|HS)\s+(?P<type>[A-Z0-9]+)\s+(?P<answer>.+)"
    ),
    short=rf"(?P<answer>[0-9a-f.:]+|({NUMBER} )*\S+\.|\".*\")",
)
_REFUSALS = ("connection refused", "host unreachable", "network unreachable")


@table(
    Column("question", "str", "the name asked for, with its final dot"),
    Column("question_type", "str", "A, PTR, …"),
    Column("status", "str", "NOERROR, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT, UNREACHABLE"),
    Column("name", "str", "the name that the answer is for"),
    Column("ttl_s", "int", "seconds that the answer may be kept"),
    Column("type", "str", "A, AAAA, CNAME, PTR"),
    Column("answer", "str", "absent: no answer"),
    Column("server", "str", "who answered"),
    Column("server_port", "int", "53, as a rule"),
    Column("query_time_ms", "int", "from the question to its answer"),
)
def dig(text: str, *, section: str | None = "ANSWER") -> Iterator[Row]:
    """Read `dig NAME`, also +short or +noall +answer: one row per answer.

    A question without an answer gives one row as well; UNREACHABLE means that word came back from the
    server's address: nobody listens there. With +short there are only type and answer.
    ``section`` is what records are in that stand below no heading (+noall, +nocomments); None: in one
    that nobody can tell, so that such a record is refused.

    Example::

        $ dig +noall +answer hello-a
        hello-a.                600     IN      A       10.0.1.2
    """
    query: Row = {}
    answers: list[Row] = []
    failures: list[str] = []
    current = section
    for kind, found, where in classify(text, _LINES, "a line of dig"):
        if kind in ("header", "no_server"):
            yield from _rows(query, answers)
            failed = kind == "no_server"
            query = {"status": why_no_server(found["how"], failures)} if failed else found
            answers, failures, current = [], [], section
        elif kind == "no_reply":
            failures.append(where[1])
        elif kind == "section":
            current = found["section"]
        elif kind in ("time", "server", "question"):
            query |= found
        elif kind == "record":
            answers += _answers(found, current, where)
        elif kind == "short":
            if query:
                raise ParseError(*where, "a record: name, ttl, class, type, data")
            answers.append(found | {"type": _family(found["answer"], where)})
    yield from _rows(query, answers)


def _rows(query: Row, answers: list[Row]) -> list[Row]:
    """Return a question with each of its answers, or alone; nothing when there was no question yet."""
    return [query | answer for answer in answers or [{}]] if query or answers else []


def _answers(record: Row, section: str | None, where: Where) -> list[Row]:
    """Return a record if it is in the section of the answers."""
    if section is None:
        hint = "leave the comments on, or ask for one section: dig +noall +answer"
        raise ParseError(*where, "a heading before it, as `;; ANSWER SECTION:`", hint=hint)
    if section == "ANSWER" and record["type"] in ("A", "AAAA"):
        check_address(record["answer"], where, "dig")
    return [record] if section == "ANSWER" else []


def why_no_server(how: str | None, failures: list[str]) -> str:
    """Return the status of a question that no server answered, by what was said about each try.

    UNREACHABLE: word came back that nobody listens there; TIMEOUT: nothing came back.
    """
    refused = failures and all(line.rstrip(".").endswith(_REFUSALS) for line in failures)
    return "UNREACHABLE" if refused and how is None else "TIMEOUT"


def _family(answer: str, where: Where) -> str | None:
    """Name the type of an answer that +short prints alone; None when it is a name or a text."""
    if is_address(answer):
        return "AAAA" if ":" in answer else "A"
    if answer[-1] not in '."':
        raise ParseError(*where, "an address, or a name with its final dot")
    return None
