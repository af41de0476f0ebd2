"""Tells where the time of a cold `labkit up` on a Docker engine goes, from the traces that it leaves.

bench/profile_up.py [TIMES] uses the engine that DOCKER_HOST names. Nothing is added to what is
measured: the times are those of the containers, sockets, namespaces and swarm objects afterwards.
Prints the median second, from the start of the command, at which each was there on the last node.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from labkit import swarm

LAB = "profile"
LABKIT = Path(sys.executable).with_name("labkit")


def stamp(text: str) -> float:
    """Read Docker's time stamps, whose fractions have more digits than Python reads."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6] or 0:0<6}+00:00").timestamp()


def made(node: swarm.Node, path: str) -> float:
    """Return when a file of a node was made."""
    return float(node.run(["stat", "--format", "%.Y", path]).check().stdout)


def look(began: float, ended: float) -> dict[str, float]:
    """Return the seconds from `began` to each milestone of the lab that runs."""
    lab = swarm.get(LAB)
    boxes = [lab.engine.client.api.inspect_container(n.container) for n in lab.nodes.values()]
    nodes = list(lab.nodes.values())
    first = lab.manager.docker
    members = first.api.nodes()
    told = {
        "containers made": [stamp(box["Created"]) for box in boxes],
        "containers started": [stamp(box["State"]["StartedAt"]) for box in boxes],
        "agents listen": [made(node, "/run/labkit-agent.sock") for node in nodes],
        "engines of the nodes listen": [made(node, "/run/docker.sock") for node in nodes],
        "swarm begun": [stamp(first.api.inspect_swarm()["CreatedAt"])],
        "nodes joined": [stamp(member["CreatedAt"]) for member in members],
        "nodes ready": [stamp(member["UpdatedAt"]) for member in members],
        "routing mesh": [made(node, "/run/docker/netns/ingress_sbox") for node in nodes],
        "command ended": [ended],
    }
    lab.close()
    return {name: max(times) - began for name, times in told.items()}


def main() -> None:
    """Stand a lab up so many times and print the medians."""
    rounds: list[dict[str, float]] = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        try:
            began = time.time()
            subprocess.run([LABKIT, "up", "--engine", "docker", "--lab", LAB], check=True)
            rounds.append(look(began, time.time()))
        finally:
            swarm.down(LAB)
    before = 0.0
    for name in rounds[0]:
        seconds = statistics.median(row[name] for row in rounds)
        print(f"| {name} | {seconds:.1f} s | {seconds - before:+.1f} s |")
        before = seconds


if __name__ == "__main__":
    main()
