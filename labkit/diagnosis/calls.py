"""Whom services say that they call: URLs in their labels and in their environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit.diagnosis.finding import Finding
from labkit.diagnosis.seen import listening

if TYPE_CHECKING:
    from labkit.diagnosis.declared import Declared, Service
    from labkit.diagnosis.seen import NodeSeen

    Seen = Mapping[str, NodeSeen]

_PORTS = {"http": 80, "https": 443}


def addresses(said: Declared, seen: Seen) -> Iterator[Finding]:
    """Find addresses that cannot be reached by who is told to call them."""
    for service in said.services:
        for named, url in service.urls.items():
            try:
                parts = urlsplit(url)
                host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
            except ValueError:
                continue  # not an address after all
            told = f"{named}={parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password
            yield from _call(said, seen, service, told, host, port)


def _call(
    said: Declared, seen: Seen, service: Service, evidence: str, host: str, port: int
) -> Iterator[Finding]:
    where = service.name
    if host == "::1" and _is_published(said, port):
        yield Finding(
            what=f"port {port} is looked for at ::1, where published ports do not answer",
            where=where,
            evidence=evidence,
            why="the routing mesh is made of IPv4; docker-proxy takes the connection and has no answer",
            remedy=f"ask 127.0.0.1:{port}",
            lab="12",
            fault="localhost-is-ipv6",
        )
    elif host == service.name:
        return  # where it says that it is to be found itself
    elif called := next((other for other in said.services if other.name == host), None):
        yield from _by_name(said, seen, service, called, evidence, port)
    elif (network := _network_of(said, host)) and network not in service.networks:
        yield Finding(
            what=f"{where} is to call {host}, an address of {network}, and is not on that network",
            where=where,
            evidence=f"{evidence}; its networks: {', '.join(sorted(service.networks)) or 'none'}",
            why="an overlay is reached from its own tasks alone",
            remedy="let it call the name, or an address on a network that both are on",
            lab="04",
            fault="unshared-network",
        )


def _by_name(
    said: Declared, seen: Seen, service: Service, called: Service, evidence: str, port: int
) -> Iterator[Finding]:
    if not service.networks & called.networks:
        yield Finding(
            what=f"{service.name} is to call {called.name}, and the two share no network",
            where=service.name,
            evidence=f"{evidence}; networks of {called.name}: "
            f"{', '.join(sorted(called.networks)) or 'none'}",
            why="a name is known on the networks of its service, and nowhere else",
            remedy="give both a network in common: docker service update --network-add",
            lab="06",
            fault="no-common-network",
        )
        return
    sockets = listening(seen, said.tasks(called.name)).values()
    every = set().union(*sockets)
    if sockets and ("tcp", port) not in every:
        published = _is_published(said, port)
        told = ", ".join(f"{kind} {number}" for kind, number in sorted(every))
        yield Finding(
            what=f"{service.name} is to call {called.name} at port {port}, where no app listens",
            where=service.name,
            evidence=f"{evidence}; ss -lntu there: {told}",
            why="nodes have a published port; in an overlay the container's own port counts"
            if published
            else "nothing listens there",
            remedy=f"call {called.name} at the port that its app listens on",
            lab="02",
            fault="wrong-port" if published else None,
        )


def _is_published(said: Declared, port: int) -> bool:
    return any(port == one.published for service in said.services for one in service.ports)


def _network_of(said: Declared, host: str) -> str | None:
    """Return the overlay that an address is of; None where it is of none, or is a name."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return None
    return next((n.name for n in said.networks if not n.ingress and n.holds(host)), None)
