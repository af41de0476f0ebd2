"""A request to a daemon's API and its response, as evidence keeps them and gives them back."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from labkit.transport.base import API_VERSION

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_VERSION = f"/v{API_VERSION}"


def request_row(request: PreparedRequest) -> dict[str, Any]:
    """Return what a request asks: method, path without the API's version, body."""
    body, text = request.body, None
    if isinstance(body, bytes):
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = f"base64:{base64.b64encode(body).decode()}"
    elif body is not None:
        text = body if isinstance(body, str) else "(a stream)"
    path = request.path_url.removeprefix(_VERSION)
    return {"method": request.method, "path": path, "body": text}


def reason_not_kept(request: PreparedRequest) -> str:
    """Say why a request's answer cannot be kept; empty where it can."""
    address = urlsplit(request.path_url)
    query = {name: values[-1] for name, values in parse_qs(address.query).items()}
    if "Upgrade" in request.headers:
        return "a connection that is handed over is not kept"
    if address.path.endswith("/events") and "until" not in query:
        return "events without an end (until=…) are not kept"
    if address.path.endswith("/logs") and query.get("follow") in ("1", "True", "true"):
        return "logs that are followed are not kept"
    if address.path.endswith("/stats") and query.get("stream") not in ("0", "False", "false"):
        return "a stream of statistics is not kept"
    if address.path.endswith(("/get", "/archive", "/export")):
        return "files are not kept"
    return ""


def response_row(status: int, kind: str, content: bytes) -> dict[str, Any]:
    """Return what the response to a request was: status, type, response, encoding."""
    try:
        text, encoding = content.decode(), "text"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(content).decode(), "base64"
    return {"status": status, "type": kind, "response": text, "encoding": encoding}


def content_of(row: Mapping[str, Any]) -> bytes:
    """Return the bytes that `response_row` wrote down."""
    text = str(row["response"])
    return base64.b64decode(text) if row["encoding"] == "base64" else text.encode(errors="replace")


class _Body(io.BytesIO):
    """An answer's bytes, with what the docker SDK looks for in one that comes in chunks."""

    chunked = True

    @property
    def chunk_left(self) -> int:
        return len(self.getbuffer()) - self.tell()


def response_of(request: PreparedRequest, status: int, kind: str, content: bytes) -> Response:
    """Return a response made of what is kept of one: live and replayed, the SDK reads the same."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPResponse

    raw = HTTPResponse(
        _Body(content), headers={"Content-Type": kind}, status=status, preload_content=False
    )
    return HTTPAdapter().build_response(request, raw)
