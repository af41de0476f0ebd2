"""Which Docker versions there are, and which packages hold them: the kit's file, and one of your own.

compose/versions.yaml has a row for each version that a release of Debian carries. `LABKIT_VERSIONS`
names a file with more rows; such a row may take the engine from another apt repository, as
docs/versions.md tells.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from labkit import paths
from labkit.engines.repository import Repository, public_keys
from labkit.errors import UnknownNameError, VersionsError
from labkit.yaml_lines import Reader

VARIABLE = "LABKIT_VERSIONS"

_ROW: dict[str, tuple[type, bool]] = {
    "suite": (str, True),
    "packages": (list, True),
    "repository": (dict, False),
}
_REPOSITORY: dict[str, tuple[type, bool]] = {
    "address": (str, True),
    "suite": (str, True),
    "components": (list, True),
    "key": (str, True),
}
# What is handed to apt and its like is a name and nothing else: no option, no second line of a file.
_VERSION = re.compile(r"\d+(\.\d+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+-]*(/[A-Za-z0-9._~+-]+)*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?|(file|copy):(//)?/[!-~]+")


@dataclass(frozen=True)
class Release:
    """A Docker version: the Debian release that a node is made of, and the engine's packages.

    They are that release's own, or come from a repository beside it.
    """

    docker: str
    suite: str
    packages: tuple[str, ...]
    repository: Repository | None = None


def releases() -> dict[str, Release]:
    """Return what can be had: Docker version -> where it comes from; raises VersionsError."""
    return {**shipped(), **own()}


def release(docker: str) -> Release:
    """Find a Docker version; raises UnknownNameError and VersionsError."""
    known = releases()
    if docker not in known:
        raise UnknownNameError(
            "Docker version of the nodes",
            docker,
            known,
            hint=f"take one of those, or add it in a file that {VARIABLE} names: docs/versions.md",
        )
    return known[docker]


@cache
def shipped() -> dict[str, Release]:
    """Return the versions that the kit comes with, of compose/versions.yaml."""
    return read(paths.COMPOSE / "versions.yaml")


def own() -> dict[str, Release]:
    """Return the versions of the file that LABKIT_VERSIONS names, none where it names none.

    It is read each time, because a notebook lives longer than a mistake in it. Raises VersionsError.
    """
    named = os.environ.get(VARIABLE)
    return read(Path(named).absolute(), taken=shipped()) if named else {}


def read(file: Path, taken: dict[str, Release] | None = None) -> dict[str, Release]:
    """Read a file of versions; raises VersionsError, for a version that is `taken` too."""
    reader = Reader(file, VersionsError)
    found = {}
    for docker, row in reader.mapping(reader.root(), "").items():
        _fits(reader, row, docker, docker, _VERSION, "a version in numbers and dots, 29.8 say")
        if docker in (taken or ()):
            raise reader.wrong(
                row,
                docker,
                "the kit has that version already, and recordings and saved states are named by it; "
                "name yours otherwise, with its last number say",
            )
        found[docker] = _release(reader, file, docker, row)
    return found


def _release(reader: Reader, file: Path, docker: str, item: yaml.Node) -> Release:
    row, nodes = reader.checked(item, docker, _ROW), reader.mapping(item, docker)
    _fits(reader, nodes["suite"], f"{docker}.suite", row["suite"], _NAME, "a release of Debian")
    packages = _names(reader, nodes["packages"], f"{docker}.packages", row["packages"], _PACKAGE)
    beside = None
    if "repository" in row:
        beside = _repository(reader, file, f"{docker}.repository", nodes["repository"], packages)
    return Release(docker, row["suite"], packages, beside)


def _repository(
    reader: Reader, file: Path, path: str, item: yaml.Node, packages: tuple[str, ...]
) -> Repository:
    row, nodes = reader.checked(item, path, _REPOSITORY), reader.mapping(item, path)
    if problem := _no_address(row["address"]):
        raise reader.wrong(nodes["address"], f"{path}.address", problem)
    _fits(reader, nodes["suite"], f"{path}.suite", row["suite"], _NAME, "the name of a suite")
    return Repository(
        address=row["address"],
        suite=row["suite"],
        components=_names(reader, nodes["components"], f"{path}.components", row["components"], _NAME),
        key=_key(reader, file, f"{path}.key", nodes["key"], row["key"]),
        packages=packages,
    )


def _no_address(address: str) -> str:
    """Return what keeps a text from being the address of a repository; empty where it is one."""
    if re.match(r"\w+://[^/]*@", address):
        # Nor is it repeated here: a message must not show what is a secret.
        return "holds a user name or password, which would stay in the nodes; expected one without"
    if not _ADDRESS.fullmatch(address):
        return f"is {address!r}, expected http://HOST/…, https://HOST/…, file:/… or copy:/…"
    return ""


def _key(reader: Reader, file: Path, path: str, item: yaml.Node, text: str) -> bytes:
    """Return the public keys that a row has in it, or names a file of beside the versions file."""
    content, what = text.encode(), "the text"
    if "-----BEGIN" not in text:
        place = file.parent / text
        try:
            content, what = place.read_bytes(), str(place)
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise reader.wrong(
                item, path, f"names {place}, which cannot be read: {reason}"
            ) from problem
    try:
        return public_keys(content)
    except ValueError as problem:
        raise reader.wrong(item, path, f"{what} {problem}, expected a public key") from problem


def _names(
    reader: Reader, item: yaml.Node, path: str, found: list[Any], pattern: re.Pattern[str]
) -> tuple[str, ...]:
    if not found:
        raise reader.wrong(item, path, "is an empty list, expected at least one name")
    for name in found:
        _fits(reader, item, path, name, pattern, "a name")
    return tuple(found)


def _fits(
    reader: Reader, item: yaml.Node, path: str, found: object, pattern: re.Pattern[str], expected: str
) -> None:
    if not (isinstance(found, str) and pattern.fullmatch(found)):
        raise reader.wrong(item, path, f"has {found!r}, expected {expected}")
