"""The picture of a request's way: drawn from tables that a swarm of three nodes gave (Docker 26.1)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from labkit import plots
from labkit.plots import canvas

TABLES = Path(__file__).with_name("tables")
NETWORK = pd.read_csv(TABLES / "topology.csv", dtype={"vni": "Int64"})
WAY = pd.read_csv(TABLES / "packet.csv")  # asked on node2, answered by hello.1 on node3


def lit(axes: Any) -> list[list[tuple[float, float]]]:
    """The broad lines: where each begins and ends, and its corners."""
    lines = [line for line in axes.lines if line.get_linewidth() == 6]
    return [list(zip(*line.get_data(), strict=True)) for line in lines]


@pytest.fixture(autouse=True)
def figures() -> Any:
    mpl.use("agg")
    yield
    plt.close("all")


def test_a_request_to_another_node_crosses_the_vxlan() -> None:
    axes = plots.packet(WAY, network=NETWORK)
    door, first, last, vxlan = lit(axes)
    assert [len(line) for line in (door, first, last)] == [6, 2, 6]  # two go past a floor
    assert len(vxlan) == 4  # down, across, and up again
    assert vxlan[0][0] < vxlan[-1][0]
    assert vxlan[1][1] == vxlan[2][1]
    told = axes.get_figure(root=True).alternative_text
    assert "One request to port 5000 of node2, answered on node3" in told
    assert "node2/ingress_sbox, counted by MARK, SNAT, IPVS" in told


def test_a_request_that_stays_on_its_node_crosses_none() -> None:
    here = WAY.replace({"node2": "node1", "node3": "node1", "hello.1 sandbox": "hello.2 sandbox"})
    here["place"] = here["place"].str.replace("node2", "node1")
    assert [len(line) for line in lit(plots.packet(here, network=NETWORK))] == [6, 2, 6]


def test_no_line_is_behind_a_box() -> None:
    axes = plots.topology(NETWORK)
    boxes = [patch.get_bbox() for patch in axes.patches]
    assert len(boxes) > 5
    for line in axes.lines:
        for (left, low), (right, high) in itertools.pairwise(zip(*line.get_data(), strict=True)):
            for box in boxes:
                beside = max(left, right) <= box.x0 or min(left, right) >= box.x1
                assert beside or max(low, high) <= box.y0 + 1e-9 or min(low, high) >= box.y1 - 1e-9


def test_each_place_has_its_number() -> None:
    axes = plots.packet(WAY, network=NETWORK)
    badges = {t.get_text(): t for t in axes.texts if t.get_bbox_patch() is not None}
    assert list(badges) == ["1", "2", "3"]
    ink = mpl.colors.to_rgba(canvas.VERMILLION_INK)
    assert all(badge.get_bbox_patch().get_facecolor() == ink for badge in badges.values())
