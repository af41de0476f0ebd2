"""A learning platform on loopback, as 1EdTech's documents say: it refuses what a real one refuses.

It checks the assertion's signature, audience, time and that it is new; the token's scopes; the content
types; and a score's fields. Its addresses have a query, as Moodle's have, and its lists have pages.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

AGS, NRPS = (
    "https://purl.imsglobal.org/spec/lti-ags/scope",
    "https://purl.imsglobal.org/spec/lti-nrps/scope",
)
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PAGE = 2


@dataclass
class LearningPlatform:
    """What a course has, and what was sent to it."""

    public_key: str
    client_id: str = "1000"
    members: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    """The users whose scores are not taken."""
    scopes: set[str] = field(default_factory=set)
    """Of the token that was given."""
    seen: set[str] = field(default_factory=set)
    url: str = ""

    def token(self, form: dict[str, list[str]]) -> tuple[int, Any]:
        """Give a token for an assertion."""
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        if form.get("client_assertion_type") != [BEARER]:
            return 400, {"error": "invalid_request"}
        try:
            claims = jwt.decode(
                form["client_assertion"][0],
                self.public_key,
                ["RS256"],
                audience=f"{self.url}/token",
                options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
            )
        except jwt.InvalidTokenError as problem:
            return 400, {"error": "invalid_client", "error_description": str(problem)}
        if {claims["iss"], claims["sub"]} != {self.client_id} or claims["jti"] in self.seen:
            return 400, {"error": "invalid_client"}
        self.seen.add(claims["jti"])
        self.scopes = set(form["scope"][0].split())
        return 200, {"access_token": "let-me-in", "token_type": "Bearer", "expires_in": 3600}

    def make_item(self, item: dict[str, Any]) -> tuple[int, Any]:
        """Make a column."""
        if not {"label", "scoreMaximum"} <= set(item) or item["scoreMaximum"] <= 0:
            return 400, {"error": "a line item has a label and a maximum"}
        item["id"] = f"{self.url}/items/{len(self.items)}/lineitem?type_id=2"
        self.items.append(item)
        return 201, item

    def take(self, number: str, score: dict[str, Any]) -> tuple[int, Any]:
        """Take a score."""
        wanted = {"userId", "activityProgress", "gradingProgress", "timestamp"}
        if not wanted <= set(score) or datetime.fromisoformat(score["timestamp"]).tzinfo is None:
            return 400, {"error": "a score has a user, its progress and a time with its zone"}
        if score["userId"] in self.locked:
            return 403, {"error": "this user's grade is locked"}
        self.scores.setdefault(number, []).append(score)
        return 204, None


class _Handler(BaseHTTPRequestHandler):
    platform: LearningPlatform

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        if parts.path == "/members" and self._may(f"{NRPS}/contextmembership.readonly"):
            kind = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"
            self._page(self.platform.members, asked, kind, lambda rows: {"id": "m", "members": rows})
        elif parts.path == "/items" and self._may(f"{AGS}/lineitem"):
            (wanted,) = asked.get("resource_id", [""])
            rows = [row for row in self.platform.items if wanted in ("", row.get("resourceId"))]
            kind = "application/vnd.ims.lis.v2.lineitemcontainer+json"
            self._page(rows, asked, kind, lambda rows: rows)
        elif self.path:
            self._answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if parts.path == "/token" and kind == "application/x-www-form-urlencoded":
            self._answer(*self.platform.token(parse_qs(content.decode())))
        elif parts.path == "/items" and kind == "application/vnd.ims.lis.v2.lineitem+json":
            if self._may(f"{AGS}/lineitem"):
                self._answer(*self.platform.make_item(json.loads(content)))
        elif (
            parts.path.endswith("/lineitem/scores") and kind == "application/vnd.ims.lis.v1.score+json"
        ):
            if self._may(f"{AGS}/score") and parts.query == "type_id=2":
                self._answer(*self.platform.take(parts.path.split("/")[2], json.loads(content)))
        else:
            self._answer(415, {"error": f"{parts.path} does not take {kind}"})

    def _may(self, scope: str) -> bool:
        known = self.headers["Authorization"] == "Bearer let-me-in"
        if known and scope in self.platform.scopes:
            return True
        self._answer(401, {"error": "no token for that"})
        return False

    def _page(self, rows: list[Any], asked: dict[str, list[str]], kind: str, shape: Any) -> None:
        if self.headers["Accept"] != kind:
            self._answer(406, {"error": f"this is {kind}"})
            return
        first = int(asked.get("from", ["0"])[0])
        more = first + PAGE < len(rows)
        path = urlsplit(self.path).path
        link = {"Link": f'<{self.platform.url}{path}?from={first + PAGE}>; rel="next"'} if more else {}
        self._answer(200, shape(rows[first : first + PAGE]), link)

    def _answer(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(platform: LearningPlatform) -> Iterator[LearningPlatform]:
    """Serve a platform until the body has ended."""
    handler = type("Handler", (_Handler,), {"platform": platform})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        platform.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield platform
        finally:
            server.shutdown()
            thread.join()
