"""What one request left behind: read from real output, and from two looks at it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from labkit.capture import Capture
from labkit.engines import versions
from labkit.experiments import summary, swarms

CAPTURES = Path(__file__).parents[1] / "captures"


@dataclass(frozen=True)
class FakeNode:
    name: str = "node1"


@dataclass(frozen=True)
class FakePlace:
    label: str
    files: tuple[str, str, str]
    node: FakeNode = FakeNode()
    netns: str | None = "lb_x"
    pid: int | None = None


@dataclass(frozen=True)
class FakeLab:
    """Answers each command with the output that a real node of this version once gave."""

    docker: str

    def pause(self, seconds: float) -> None:
        """Nothing changes here, so nothing is waited for."""

    def run_all(self, commands: list[tuple[FakePlace, list[str]]]) -> list[Capture]:
        found = []
        for place, argv in commands:
            at = ("iptables-save", "ipvsadm", "ip").index(argv[0])
            text = (CAPTURES / self.docker / f"{place.files[at]}.txt").read_text()
            first, _, stdout = text.partition("\n")
            real = tuple(json.loads(first.removeprefix("$ ")))
            now = datetime.now(UTC)
            found.append(Capture(real, place.label, "node1", 0, stdout, "", now, 0.1, self.docker))
        return found


TASK = FakePlace(
    "a.1 sandbox",
    ("iptables-save--sandbox-counted", "ipvsadm--sandbox-empty", "ip-neigh--sandbox-text"),
)


def values(found: pd.DataFrame, technique: str) -> list[Any]:
    return list(found[found["technique"] == technique]["value"].dropna())


@pytest.mark.parametrize("docker", versions.shipped())
def test_a_task_has_rules_and_neighbours_and_no_balancer(docker: str) -> None:
    found = summary.technique_counters(FakeLab(docker), [TASK])  # type: ignore[arg-type, list-item]
    assert "3000" in values(found, "NAT")  # REDIRECT
    assert set(values(found, "DNS")) == {"127.0.0.11"}
    assert values(found, "IPVS") == []
    assert len(values(found, "ARP")) >= 1
    drops = found[found["what"].str.endswith("-p tcp -j DROP")]
    assert len(drops) == 2


def test_only_what_rose_has_acted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pd.DataFrame({"network": ["n"], "address": ["10.0.1.4"], "owner": ["a.2"]})
    monkeypatch.setattr(summary, "owners", lambda lab: known)
    row = {"node": "node1", "place": "lb", "technique": "IPVS"}
    kind = pd.CategoricalDtype(summary.TECHNIQUES, ordered=True)
    looks = [
        pd.DataFrame([row | {"what": f"FWM 257 -> {a}", "value": a, "count": n} for a, n in look])
        for look in ([("10.0.1.3", 2), ("10.0.1.4", 2)], [("10.0.1.3", 2), ("10.0.1.4", 3)])
    ]
    mark = row | {"technique": "iptables", "what": "mangle -A …", "value": None, "count": 4}
    looks[1] = pd.concat([looks[1], pd.DataFrame([mark])])
    before, after = (look.astype({"technique": kind, "value": "str"}) for look in looks)
    found = summary.techniques(None, before, after, request="one")  # type: ignore[arg-type]
    acted = found[found["count"] > 0]
    assert list(acted["technique"]) == ["iptables", "IPVS"]
    assert list(acted["count"]) == [4, 1]
    assert list(acted["owner"].dropna()) == ["a.2"]
    assert set(found["request"]) == {"one"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ingress_sbox", ("ingress_sbox", "ingress")),
        ("lb_abcdefghi", ("load balancer", "mine")),
        ("2-abcdefghij", ("overlay", "mine")),
        ("1-zzzzzzzzzz", ("overlay", "?")),
        ("0123456789ab", ("task", None)),
    ],
)
def test_a_namespace_is_told_by_its_name(name: str, kind: tuple[str, str | None]) -> None:
    assert swarms.kind_of(name, {"abcdefghijklmnop": "mine"}) == kind
