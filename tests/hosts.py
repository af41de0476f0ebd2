"""What tests do to machines of one's own, past labkit: look at what is on them, shut a port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labkit.engines.hosts import facts

if TYPE_CHECKING:
    from docker import DockerClient


def found_on(engines: Mapping[str, DockerClient]) -> dict[str, dict[str, Any]]:
    """What is on each machine that labkit could leave there."""
    return {
        name: {
            "images": facts.images_of(client),
            "containers": {box["Id"] for box in client.api.containers(all=True)},
            "networks": {row["Id"] for row in client.api.networks()},
            "volumes": {row["Name"] for row in client.api.volumes()["Volumes"] or ()},
            "swarm": client.info()["Swarm"]["NodeID"],
        }
        for name, client in engines.items()
    }


def shut(port: str) -> list[str]:
    """A rule of iptables that shuts a UDP port of a machine."""
    return ["INPUT", "-p", "udp", "--dport", port, "-j", "DROP"]


def stopped_at(name: str) -> str:
    """What the preflight says of a packet that a machine's own firewall stops."""
    return f"it comes to {name}, and the firewall of {name} stops it coming in"
