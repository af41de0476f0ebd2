"""Sends marks to a learning platform by LTI 1.3: no file to export and import.

What is sent, and where, is 1EdTech's: a token for an assertion that labkit signs (Security Framework
1.0, 4.1), the course's members (Names and Role Provisioning Services 2.0), a line item for each lab and
a score for each learner (Assignment and Grade Services 2.0). The platform has to know labkit as a tool,
with the public key of `make_key`; nobody has to log in through it.

The file that names the platform:

    client_id: "10000000000003"      # what the platform calls the tool
    token_url: https://moodle.example.org/mod/lti/token.php
    line_items: https://moodle.example.org/mod/lti/services.php/4/lineitems?type_id=2
    members: https://moodle.example.org/mod/lti/services.php/CourseSection/4/bindings/2/memberships
    key: lti-key.pem                 # beside this file
    learner: email                   # optional: what of a member is the learner's id
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from labkit.errors import FileError, LabkitError, UsageError
from labkit.evidence import keys
from labkit.grading.platforms import Mark
from labkit.grading.texts import visible
from labkit.yaml_lines import Reader

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from requests import Response

IDS = ("lis_person_sourcedid", "email", "user_id")
"""What of a member is the learner's id: the first of these that somebody has."""

_URLS = ("token_url", "line_items", "members")
_KEYS: dict[str, tuple[type, bool]] = {
    **dict.fromkeys(("client_id", *_URLS, "key"), (str, True)),
    "learner": (str, False),
}
_AGS, _NRPS = "https://purl.imsglobal.org/spec/lti-ags", "https://purl.imsglobal.org/spec/lti-nrps"
_SCOPES = (
    f"{_AGS}/scope/lineitem",
    f"{_AGS}/scope/score",
    f"{_NRPS}/scope/contextmembership.readonly",
)
_MEMBERS = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"
_ITEMS = "application/vnd.ims.lis.v2.lineitemcontainer+json"
_ITEM = "application/vnd.ims.lis.v2.lineitem+json"
_SCORE = "application/vnd.ims.lis.v1.score+json"
_HERE = ("127.0.0.1", "::1", "localhost")
_SECONDS = 30.0
_ASSERTION_S = 300
_BITS = 2048
_NEW_KEY = "labkit platform key KEYFILE makes a pair of keys"
_MOST_PAGES = 200


class PlatformFileError(FileError):
    """The file that names a learning platform is wrong."""

    _next_step = "mend that line of {file}; docs/instructors.md has an example"


class PlatformError(LabkitError):
    """The learning platform does not answer, or refuses."""


@dataclass(frozen=True)
class Platform:
    """A course on a learning platform, and what labkit is there."""

    client_id: str
    token_url: str
    line_items: str
    members: str
    key: Path
    learner: str = ""


@dataclass(frozen=True)
class Sent:
    """What the platform has taken, and what not."""

    scores: int
    columns: tuple[str, ...]
    """The labs for which a column was made there."""
    left_out: tuple[str, ...]
    """What was not sent, a sentence each."""
    refused: tuple[str, ...]
    """What the platform has refused, a sentence each."""


def read(file: Path) -> Platform:
    """Read the file that names a platform; raises PlatformFileError."""
    reader = Reader(file, PlatformFileError)
    root = reader.root()
    row, nodes = reader.checked(root, "", _KEYS), reader.mapping(root, "")
    for name in _URLS:
        if not _is_safe(row[name]):
            raise reader.wrong(nodes[name], name, f"is {row[name]!r}, expected https://…")
    if row.get("learner", IDS[0]) not in IDS:
        known = ", ".join(IDS)
        raise reader.wrong(
            nodes["learner"], "learner", f"is {row['learner']!r}, expected one of {known}"
        )
    return Platform(**{**row, "key": file.absolute().parent / row["key"]})


def _is_safe(url: str) -> bool:
    """Whether a token may go to an address: by https, or to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)


# --- the key -------------------------------------------------------------------------------------


def make_key(path: Path) -> tuple[Path, dict[str, Any]]:
    """Write a new pair of RSA keys, as `keys.write_pair` does.

    Returns the path of the public key, and the same as a JSON Web Key.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa
    from jwt.algorithms import RSAAlgorithm

    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    parts = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    named = {"kid": _name_of(key), "alg": "RS256", "use": "sig"}
    return keys.write_pair(path, key), {**{name: parts[name] for name in ("kty", "n", "e")}, **named}


def _name_of(key: RSAPrivateKey) -> str:
    """Name a key by its public half, so that a platform with many knows which one signed."""
    from cryptography.hazmat.primitives import serialization as forms

    public = key.public_key().public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()[:16]


# --- sending -------------------------------------------------------------------------------------


def send(platform: Platform, marks: Sequence[Mark], *, unread: bool = False) -> Sent:
    """Send marks: each lab into its own column, which is made where the course has none.

    Marks with answers that nobody has read stay here, unless `unread`; then the platform is told that
    they wait for a person. A score that the platform refuses does not keep the others back.

    Raises UsageError for a key that cannot be used and for two marks of one learner in one lab,
    PlatformError where the platform gives no token, no members or no column.
    """
    times = Counter((mark.student.casefold(), mark.lab) for mark in marks)
    for (student, lab), number in times.items():
        if number > 1:
            raise UsageError(
                f"{visible(student)} {lab[:2]} has two marks for one lab",
                hint="one assignment at a time: grade it by itself",
            )
    left_out, refused, made, scores = [], [], [], 0
    columns: dict[str, str] = {}
    with closing(_Course(platform)) as course:
        ids = course.learners()
        for mark in marks:
            who = f"{visible(mark.student)} {mark.lab[:2]}"
            user = ids.get(mark.student.casefold())
            if user is None:
                left_out.append(f"{who}: no such learner in the course")
                continue
            if mark.unread and not unread:
                left_out.append(f"{who}: {mark.unread} answers are still to be read")
                continue
            if mark.lab not in columns:
                columns[mark.lab], new = course.column(mark)
                made += [mark.lab] if new else []
            try:
                course.score(columns[mark.lab], user, mark)
                scores += 1
            except PlatformError as problem:
                refused.append(f"{who}: {problem.args[0]}")
    return Sent(scores, tuple(made), tuple(left_out), tuple(refused))


class _Course:
    """A course of a platform, asked and told with one token."""

    def __init__(self, platform: Platform) -> None:
        import requests

        self._platform = platform
        self._session = requests.Session()
        answer = self._ask("POST", platform.token_url, data=self._assertion())
        token = _table(answer).get("access_token")
        if not isinstance(token, str):
            raise PlatformError(
                f"{platform.token_url} gives no token: {answer.text[:200]!r}",
                hint="the client id, the key and the services that the tool may use, on the platform",
            )
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    def _assertion(self) -> dict[str, str]:
        """Return the request for a token, with the assertion that proves who asks."""
        import jwt
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

        key = keys.private(self._platform.key, _NEW_KEY)
        if not isinstance(key, RSAPrivateKey):
            raise UsageError(f"the key {self._platform.key} is not of RSA", hint=_NEW_KEY)
        now = int(time.time())
        claims = {
            "iss": self._platform.client_id,
            "sub": self._platform.client_id,
            "aud": self._platform.token_url,
            "iat": now,
            "exp": now + _ASSERTION_S,
            "jti": uuid.uuid4().hex,
        }
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode(claims, key, "RS256", headers={"kid": _name_of(key)}),
            "scope": " ".join(_SCOPES),
        }

    def learners(self) -> dict[str, str]:
        """Return the platform's own ids by the learners' ids in small letters.

        Of an e-mail address what stands before its @ will do, where that is one learner's.
        """
        members = [
            row
            for page in self._pages(self._platform.members, _MEMBERS)
            for row in _rows(_table(page), "members")
            if row.get("status", "Active") == "Active" and "user_id" in row
        ]
        claim = self._platform.learner or next(
            (one for one in IDS if any(row.get(one) for row in members)), IDS[-1]
        )
        whole: dict[str, set[str]] = {}
        short: dict[str, set[str]] = {}
        for row in members:
            if found := str(row.get(claim) or "").strip().casefold():
                whole.setdefault(found, set()).add(str(row["user_id"]))
                short.setdefault(found.partition("@")[0], set()).add(str(row["user_id"]))
        return {name: next(iter(users)) for name, users in (short | whole).items() if len(users) == 1}

    def column(self, mark: Mark) -> tuple[str, bool]:
        """Return a lab's line item, and whether it was made now."""
        url = self._platform.line_items
        for page in self._pages(url, _ITEMS, params={"resource_id": mark.lab}):
            for row in _rows(page.json(), None):
                if row.get("resourceId") == mark.lab and "id" in row:
                    return str(row["id"]), False
        item = {
            "label": mark.lab.replace("_", " "),
            "scoreMaximum": mark.most,
            "resourceId": mark.lab,
        }
        answer = self._ask("POST", url, data=json.dumps(item), headers=_is(_ITEM))
        made = _table(answer).get("id")
        if not isinstance(made, str):
            raise PlatformError(f"{url} has made no column for {mark.lab}: {answer.text[:200]!r}")
        return made, True

    def score(self, column: str, user: str, mark: Mark) -> None:
        """Give a learner the points of a lab; raises PlatformError."""
        score = {
            "userId": user,
            "scoreGiven": mark.points,
            "scoreMaximum": mark.most,
            "activityProgress": "Completed",
            "gradingProgress": "PendingManual" if mark.unread else "FullyGraded",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        parts = urlsplit(column)  # its query, as Moodle's has one, stays behind the path
        url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/scores"))
        self._ask("POST", url, data=json.dumps(score), headers=_is(_SCORE))

    def _pages(
        self, url: str, kind: str, params: Mapping[str, str] | None = None
    ) -> Iterator[Response]:
        """Yield an answer, and those that it says come next."""
        for _ in range(_MOST_PAGES):
            answer = self._ask("GET", url, params=params, headers={"Accept": kind})
            yield answer
            url, params = answer.links.get("next", {}).get("url", ""), None
            if not url:
                return

    def _ask(self, method: str, url: str, **more: Any) -> Response:
        """Ask the platform something; raises PlatformError."""
        from requests import RequestException

        if not _is_safe(url):  # of a column or a page, which the platform itself names
            raise PlatformError(f"the platform names {url}, expected https://…")
        try:
            answer = self._session.request(method, url, timeout=_SECONDS, allow_redirects=False, **more)
        except RequestException as problem:
            raise PlatformError(
                f"{urlsplit(url).netloc} does not answer: {type(problem).__name__}",
                hint="the addresses in the platform's file, and the network",
            ) from problem
        if answer.status_code // 100 != 2:
            said = " ".join(answer.text.split())[:200]
            raise PlatformError(
                f"{method} {url}: {answer.status_code} {answer.reason}: {said}",
                hint="the platform's administrator sees which of LTI's services the tool may use",
            )
        return answer


def _is(kind: str) -> dict[str, str]:
    return {"Content-Type": kind, "Accept": "application/json, */*"}


def _table(answer: Response) -> dict[str, Any]:
    """Return an answer that is a JSON object; raises PlatformError."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PlatformError(f"{answer.url} does not answer in JSON: {answer.text[:200]!r}")
    return found


def _rows(found: Any, key: str | None) -> list[dict[str, Any]]:
    rows = found.get(key) if key else found
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
