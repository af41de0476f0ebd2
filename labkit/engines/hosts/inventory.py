"""Reads the file that names the machines of one's own; a mistake is told with file, line and key.

pool: 172.28.0.0/14                  # optional: where Swarm's networks get their addresses
hosts:
  - name: alpha                      # the machine's own name, as `hostname` prints it there
    role: manager                    # or worker, which it is without a word
    docker: ssh://me@alpha           # or tcp://alpha:2376, or unix:///run/docker.sock
    address: 192.0.2.11              # optional: by which the others reach it
  - name: beta
    context: beta                    # a docker context instead
  - name: gamma
    docker: tcp://192.0.2.13:2376
    tls: certificates/gamma          # beside this file: ca.pem, cert.pem, key.pem
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import yaml

from labkit.errors import HostsError
from labkit.yaml_lines import Reader

MOST_HOSTS = 20

_KEYS: dict[str, tuple[type, bool]] = {
    "name": (str, True),
    "role": (str, False),
    "docker": (str, False),
    "context": (str, False),
    "tls": (str, False),
    "address": (str, False),
}
_ROLES = ("manager", "worker")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")
_LEAST_POOL = 23  # two networks of 24 bits: the routing mesh's and one more


@dataclass(frozen=True)
class Host:
    """One machine, as the file has it."""

    name: str
    manager: bool
    docker: str | None = None
    context: str | None = None
    tls: str | None = None
    """The directory with the certificates for `tcp://`."""
    address: str | None = None


@dataclass(frozen=True)
class Inventory:
    """The machines of one file, managers first."""

    file: str
    hosts: tuple[Host, ...]
    pool: str | None = None


def read(file: Path) -> Inventory:
    """Read a file of machines; raises HostsError."""
    reader = Reader(file, HostsError)
    root = reader.root()
    top = reader.mapping(root, "", known={"hosts", "pool"})
    node, _ = reader.required(top, "hosts", root)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise reader.wrong(node, "hosts", "must be a list of machines, each with a `- name:`")
    if len(node.value) > MOST_HOSTS:
        raise reader.wrong(node, "hosts", f"has {len(node.value)} machines; {MOST_HOSTS} are the most")
    hosts: list[Host] = []
    for number, item in enumerate(node.value):
        path = f"hosts[{number}]"
        host = _host(reader, file, item, path)
        _is_another(reader, item, path, host, hosts)
        hosts.append(host)
    if not any(host.manager for host in hosts):
        raise reader.wrong(node, "hosts", "has no manager; write `role: manager` at one of them")
    pool = _pool(reader, top["pool"]) if "pool" in top else None
    ordered = sorted(hosts, key=lambda host: not host.manager)
    return Inventory(str(file.absolute()), tuple(ordered), pool)


def _host(reader: Reader, file: Path, item: yaml.Node, path: str) -> Host:
    row, nodes = reader.checked(item, path, _KEYS), reader.mapping(item, path)

    def wrong(key: str, problem: str) -> HostsError:
        error = reader.wrong(nodes.get(key, item), f"{path}.{key}", problem)
        assert isinstance(error, HostsError)
        return error

    if not _NAME.fullmatch(row["name"]):
        raise wrong("name", f"is {row['name']!r}, expected the name of a machine")
    role = row.get("role", "worker")
    if role not in _ROLES:
        raise wrong("role", f"is {role!r}, expected {' or '.join(_ROLES)}")
    ways = [key for key in ("docker", "context") if key in row]
    if len(ways) != 1:
        found = "both are there" if ways else "neither is there"
        raise wrong("docker", f"one of `docker` and `context` has to be there, and {found}")
    if "context" in row and not _CONTEXT.fullmatch(row["context"]):
        raise wrong("context", f"is {row['context']!r}, expected the name of a docker context")
    if "docker" in row and (problem := _no_endpoint(row["docker"], "tls" in row)):
        raise wrong("docker", problem)
    if "tls" in row and not row.get("docker", "").startswith("tcp://"):
        raise wrong("tls", "is for `docker: tcp://…` only")
    if "address" in row and not _is_address(row["address"]):
        raise wrong("address", f"is {row['address']!r}, expected an IPv4 address, 192.0.2.11 say")
    tls = str((file.absolute().parent / row["tls"]).resolve()) if "tls" in row else None
    return Host(
        name=row["name"],
        manager=role == "manager",
        docker=row.get("docker"),
        context=row.get("context"),
        tls=tls,
        address=row.get("address"),
    )


def _no_endpoint(url: str, tls: bool) -> str:
    """Return why a URL names no Docker engine that may be used; empty where it does."""
    expected = f"is {url!r}, expected ssh://[USER@]HOST, tcp://HOST:PORT or unix:///PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return expected
    if parts.scheme == "unix":
        return "" if not parts.netloc and parts.path.startswith("/") else expected
    if _odd(parts) or parts.scheme not in ("ssh", "tcp"):
        return expected
    if parts.scheme == "ssh":
        return ""
    if port is None:
        return f"is {url!r}, and names no port; an engine with TLS listens at 2376"
    if not tls:
        return (
            "is tcp:// without `tls`: whoever reaches such a port is root on the machine. Name the "
            "directory with ca.pem, cert.pem and key.pem, or take ssh://"
        )
    return ""


def _odd(parts: SplitResult) -> bool:
    """Whether a URL has more than user, host and port, or an option of ssh in their place."""
    user, host = parts.username, parts.hostname
    named = bool(host and _PLACE.fullmatch(host)) and (user is None or bool(_PLACE.fullmatch(user)))
    more = parts.path not in ("", "/") or parts.query or parts.fragment or parts.password
    return bool(more) or not named


def _is_another(reader: Reader, item: yaml.Node, path: str, host: Host, others: list[Host]) -> None:
    """Raise HostsError where a host is there already, by its name or by its engine."""
    for other in others:
        if other.name == host.name:
            raise reader.wrong(item, f"{path}.name", f"is {host.name!r} again")
        if (other.docker, other.context) == (host.docker, host.context):
            key = "docker" if host.docker else "context"
            raise reader.wrong(item, f"{path}.{key}", f"is the engine of {other.name} again")
        if host.address and other.address == host.address:
            raise reader.wrong(item, f"{path}.address", f"is the address of {other.name} again")


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _pool(reader: Reader, node: yaml.Node) -> str:
    text = str(reader.value(node, "pool"))
    try:
        pool = ipaddress.IPv4Network(text)
    except ValueError as problem:
        raise reader.wrong(node, "pool", f"is no IPv4 network: {problem}") from problem
    if pool.prefixlen > _LEAST_POOL:
        raise reader.wrong(
            node, "pool", f"is {text}, too small: every network takes 256 addresses of it"
        )
    return text
