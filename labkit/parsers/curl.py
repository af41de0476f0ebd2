"""`curl`: one HTTP request, its answer, and its times."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import DECIMAL, NUMBER, SURROGATE, ParseError, Where, endpoint
from labkit.parsers.whoami import WHOAMI_COLUMNS, read_answer
from labkit.schema import Column, Row, table

CURL_FORMAT = (
    r"\n[curl exit=%{exitcode} http=%{http_code} lookup_s=%{time_namelookup}"
    r" connect_s=%{time_connect} total_s=%{time_total} remote=%{remote_ip}:%{remote_port}"
    r" local=%{local_ip}:%{local_port} connects=%{num_connects} size=%{size_download}"
    r" error=%{errormsg}]\n"
)
"""What `curl -s -w` is to print behind the body, for `curl` to read."""

_SUMMARY = re.compile(
    # curl before 7.75 knows neither its exit code here nor its message, and leaves both empty.
    rf"\n\[curl exit=(?P<exit_code>{NUMBER})? http=(?P<http_code>{NUMBER})"
    rf" lookup_s=(?P<time_lookup_s>{DECIMAL}) connect_s=(?P<time_connect_s>{DECIMAL})"
    rf" total_s=(?P<time_total_s>{DECIMAL}) remote=(?P<remote>\S*) local=(?P<local>\S*)"
    rf" connects=(?P<connects>{NUMBER}) size=(?P<size_bytes>{NUMBER}) error=(?P<error>.*)\]\n"
)
_TERMINAL = re.compile(r"^\[curl exit=.*\]\r\n", re.MULTILINE)
_BEGINNING = re.compile(r"^\[curl exit=", re.MULTILINE)
_EXITS = {
    0: "ok",
    3: "not a URL",
    6: "name not resolved",
    7: "could not connect: refused or no route",
    18: "answer cut short",
    22: "HTTP error",
    28: "timed out",
    35: "TLS handshake failed",
    52: "empty answer",
    55: "sending failed",
    56: "receiving failed: connection reset",
    124: "ended by `timeout`",
}


@table(
    Column("exit_code", "int", "curl's own: 0, 6, 7, 28, …"),
    Column("exit_meaning", "str", "the same in words"),
    Column("http_code", "int", "absent: no HTTP answer"),
    Column("time_lookup_s", "float", "seconds until the name was resolved"),
    Column(
        "time_connect_s", "float", "seconds until TCP was connected; absent: it never was, or was kept"
    ),
    Column("time_total_s", "float", "seconds in all"),
    Column("remote_ip", "str", "whom curl was connected to"),
    Column("remote_port", "int", "the port there"),
    Column("local_ip", "str", "curl's own end"),
    Column("local_port", "int", "the port there"),
    Column("connects", "int", "new connections; 0: one was used again, or none came about"),
    Column("size_bytes", "int", "of the body"),
    Column("error", "str", "curl's message"),
    Column("body", "str", "what the server sent, without the last line end"),
    *WHOAMI_COLUMNS,
)
def curl(text: str, stderr: str = "", *, code: int | None = None) -> Iterator[Row]:
    """Read `curl -s`, best with ``-w CURL_FORMAT``: one row per transfer.

    Without the format there is one row with body, exit code (from ``code`` or curl's message) and,
    when the headers were printed, the HTTP code. A body from the app's /whoami also fills the
    columns of `whoami`.

    Example::

        $ curl -s -m 5 -w CURL_FORMAT http://hello-a:3000/
        HI

        [curl exit=0 http=200 lookup_s=0.077994 connect_s=0.131055 total_s=0.227506 \
remote=10.0.1.2:3000 local=10.0.1.3:59338 connects=1 size=3 error=]
    """
    # Whatever a server sent is a body, but half of a character is nothing that a table can hold.
    text, stderr = (SURROGATE.sub("\N{REPLACEMENT CHARACTER}", part) for part in (text, stderr))
    if _TERMINAL.search(text):  # `docker exec -t` makes every line end one of a terminal
        text = text.replace("\r\n", "\n")
    message = re.search(rf"^curl: \(({NUMBER})\) (.*)", stderr, re.MULTILINE)
    summaries = list(_SUMMARY.finditer(text))
    end, number = 0, 1
    for found in summaries:
        number += text.count("\n", end, found.start() + 1)
        body = text[end : found.start()]
        _no_summary_in(body, number - body.count("\n") - 1)
        row = found.groupdict()
        if not row["exit_code"] and found is summaries[-1]:
            row |= {"exit_code": code, "error": message[2] if message else ""}
        yield _transfer(row, body, (number, found[0].strip()))
        number += 1
        end = found.end()
    rest = text[end:]
    _no_summary_in(rest, number)
    if summaries:
        if begun := rest.lstrip():
            number += rest.count("\n", 0, len(rest) - len(begun))
            raise ParseError(number, begun.partition("\n")[0], "a line of CURL_FORMAT behind it")
        return
    if text or message or code is not None:
        yield _without_format(text, message, code)


def _no_summary_in(body: str, number: int) -> None:
    """Raise ParseError for half a line of CURL_FORMAT in a body that begins on a line."""
    if found := _BEGINNING.search(body):
        number += body.count("\n", 0, found.start())
        line = body[found.start() :].partition("\n")[0]
        raise ParseError(number, line, "a whole line of CURL_FORMAT")


def _transfer(found: Row, body: str, where: Where) -> Row:
    """Read one transfer: what curl said about it, and the body before that."""
    remote_ip, remote_port = _end(found.pop("remote"), where)
    local_ip, local_port = _end(found.pop("local"), where)
    return (
        found
        | _whoami_in(body)
        | {
            "exit_meaning": _meaning(found["exit_code"]),
            # curl prints a zero where something never was.
            "http_code": int(found["http_code"]) or None,
            "time_connect_s": float(found["time_connect_s"]) or None,
            "remote_ip": remote_ip,
            "remote_port": remote_port,
            "local_ip": local_ip,
            "local_port": local_port,
            "error": found["error"] or None,
            "body": body.removesuffix("\n"),
        }
    )


def _end(text: str, where: Where) -> tuple[str | None, int | None]:
    """Read one end of a connection; where there was none, newer versions of curl print the port -1."""
    return (None, -1) if text == ":-1" else endpoint(text, where, "curl")


def _without_format(text: str, message: re.Match[str] | None, code: int | None) -> Row:
    """Read one transfer that was made without CURL_FORMAT."""
    if code is None and message:
        code = int(message[1])
    status = re.match(r"HTTP/[0-9.]+ ([0-9]{3})\b", text, re.ASCII)
    return _whoami_in(text) | {
        "exit_code": code,
        "exit_meaning": _meaning(code),
        "http_code": status[1] if status else None,
        "error": message[2] if message else None,
        "body": text.removesuffix("\n"),
    }


def _meaning(code: int | str | None) -> str | None:
    """Return an exit code of curl in words."""
    return None if code is None else _EXITS.get(int(code))


def _whoami_in(body: str) -> Row:
    """Return the answer of /whoami that is the last line of a body, if it is one."""
    lines = body.strip().splitlines()
    return (read_answer(lines[-1]) if lines else None) or {}
