"""`curl`: one HTTP request, its answer, and its times."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._table import endpoint
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
    r"\n\[curl exit=(?P<exit_code>\d+) http=(?P<http_code>\d+) lookup_s=(?P<time_lookup_s>[\d.]+)"
    r" connect_s=(?P<time_connect_s>[\d.]+) total_s=(?P<time_total_s>[\d.]+) remote=(?P<remote>\S*)"
    r" local=(?P<local>\S*) connects=(?P<connects>\d+) size=(?P<size_bytes>\d+)"
    r" error=(?P<error>.*)\]\n"
)
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
    end = 0
    for found in _SUMMARY.finditer(text):
        yield _transfer(found.groupdict(), text[end : found.start()])
        end = found.end()
    if end:
        return
    message = re.search(r"^curl: \((\d+)\) (.*)", stderr, re.MULTILINE)
    if text or message or code is not None:
        yield _without_format(text, message, code)


def _transfer(found: Row, body: str) -> Row:
    """Read one transfer: what curl said about it, and the body before that."""
    remote_ip, remote_port = endpoint(found.pop("remote"))
    local_ip, local_port = endpoint(found.pop("local"))
    return (
        found
        | _whoami_in(body)
        | {
            "exit_meaning": _EXITS.get(int(found["exit_code"])),
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


def _without_format(text: str, message: re.Match[str] | None, code: int | None) -> Row:
    """Read one transfer that was made without CURL_FORMAT."""
    if code is None and message:
        code = int(message[1])
    status = re.match(r"HTTP/[\d.]+ (\d{3})\b", text)
    return _whoami_in(text) | {
        "exit_code": code,
        "exit_meaning": None if code is None else _EXITS.get(code),
        "http_code": status[1] if status else None,
        "error": message[2] if message else None,
        "body": text.removesuffix("\n"),
    }


def _whoami_in(body: str) -> Row:
    """Return the answer of /whoami that is the last line of a body, if it is one."""
    lines = body.strip().splitlines()
    return (read_answer(lines[-1]) if lines else None) or {}
