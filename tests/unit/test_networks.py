"""An overlay network of a lab takes the place of another one with its name."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.engines.base import MADE_BY
from labkit.errors import CommandFailed
from tests.unit.fakes import FakeNode, as_json, lab_of

WANTED = "docker network create --driver overlay --attachable my-overlay"


class Networks:
    """A manager whose networks are made and removed by its command line, as `says` has it."""

    def __init__(self, *says: str) -> None:
        self.says = list(says)
        self.ran: list[str] = []
        self.node = FakeNode(self.run, self.api)

    def run(self, argv: list[str]) -> str | dict[str, Any]:
        self.ran.append(argv[2])
        said = self.says.pop(0)
        return {"code": 1, "stderr": f"{said}\n"} if said else "net-id\n"

    def api(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        row = {"Id": "old", "Name": "my-overlay", "Driver": "overlay", "IPAM": None}
        labels = {MADE_BY: "docker network create --driver overlay my-overlay"}
        return as_json([row | {"Labels": labels}] if "networks" in path else [])


@pytest.mark.parametrize(
    ("says", "ran"),
    [
        (["", ""], ["rm", "create"]),
        (["my-overlay is in use", "", ""], ["rm", "rm", "create"]),
        # The swarm removed it, and the first answer was lost on the way.
        (["deadline exceeded", "Error: No such network: my-overlay", ""], ["rm", "rm", "create"]),
        (["Error response from daemon: network old not found", ""], ["rm", "create"]),
        # The engine still knows the name.
        (["", "network with name my-overlay already exists", ""], ["rm", "create", "create"]),
    ],
)
def test_it_waits_until_the_other_one_is_gone(says: list[str], ran: list[str]) -> None:
    manager = Networks(*says)
    made = lab_of({"node1": manager.node}).network("my-overlay", options="--attachable")
    assert manager.ran == ran
    assert made.command.startswith(WANTED.removesuffix(" my-overlay"))


def test_what_docker_refuses_is_told() -> None:
    manager = Networks("", "Error response from daemon: invalid subnet")
    with pytest.raises(CommandFailed, match="invalid subnet"):
        lab_of({"node1": manager.node}).network("my-overlay", options="--attachable")
    assert manager.ran == ["rm", "create"]
