"""The picture of the network that a swarm's nodes and tasks stand in (labs 02, 04, 05, 07, 11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    draws,
    hide_spines,
    new_axes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# The floors of a node's column, from the top, and the frame of what stands there.
_FLOOR_OF = {"task": 0, "ingress_sbox": 1, "load balancer": 1, "overlay": 2, "node": 3}
_INKS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_WIDE, _GAP, _LINE = 2.6, 0.25, 0.2  # of a box, between boxes, of a line of words; in units of the axes
_LONGEST = 15  # characters of a name in a box


@draws("experiments.topology")
def topology(df: pd.DataFrame, *, networks: Iterable[str] = (), title: str | None = None) -> Axes:
    """Draw `experiments.topology`: the namespaces of each node as boxes, and the pairs that join them.

    Tasks stand on top, below them what balances their load, then the overlays' own namespaces, then the
    nodes; a line between nodes is a VXLAN with its number. With `networks` only these are drawn, and
    what has to do with them.
    """
    shown = _chosen(df, set(networks)) if networks else df
    nodes = list(dict.fromkeys(shown["node"]))
    boxes = _places(shown, nodes)
    height = 2.0 + sum(_tallest(boxes, floor) for floor in range(4)) * 0.9
    axes = new_axes(max(4.5, height), title or _title(shown))
    inks = _inks(shown)
    _draw_pairs(axes, shown, boxes, inks)
    _draw_vxlans(axes, shown, boxes, inks)
    for box in boxes.values():
        _draw_box(axes, box)
    width = max(box["x"] + box["w"] for box in boxes.values()) + _GAP
    axes.set_xlim(-_GAP, width)
    axes.set_ylim(min(box["y"] for box in boxes.values()) - 0.25, 0.55)
    axes.set_xticks([])
    axes.set_yticks([])
    hide_spines(axes)
    _legend(axes, inks)
    return axes


def _chosen(df: pd.DataFrame, networks: set[str]) -> pd.DataFrame:
    """Keep the nodes, the tasks, and the namespaces of some networks."""
    return df[df["network"].isin(networks) | df["kind"].isin(["node", "task"])]


def _title(df: pd.DataFrame) -> str:
    spaces = df.drop_duplicates(["node", "place"])
    counts = spaces["kind"].value_counts()
    told = ", ".join(f"{counts[kind]} {kind}" for kind in _FLOOR_OF if kind in counts)
    return f"{len(spaces)} network namespaces: {told}"


def _inks(df: pd.DataFrame) -> dict[str, tuple[str, Any]]:
    """Give each network a colour and a dash."""
    names = sorted(set(df["network"].dropna()))
    found = {n: (_INKS[i % len(_INKS)], _DASHES[i % len(_DASHES)]) for i, n in enumerate(names)}
    return found | {"docker_gwbridge": (GREY, "-")}


def _words(place: str, rows: pd.DataFrame) -> list[str]:
    """Return what stands in a box: its name, and its interfaces with their addresses."""
    name = place.removeprefix("overlay ")
    lines = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"]
    for row in rows.itertuples():
        is_end = row.kind in ("node", "overlay") and not isinstance(row.address, str)
        if row.interface in ("lo", "docker0") or (is_end and row.device == "veth"):
            continue  # the end of a pair, whose line is drawn
        what = row.address if isinstance(row.address, str) else str(row.device)
        if row.device == "vxlan":
            what = f"VNI {int(str(row.vni))}"
        lines.append(f"{row.interface}  {what}")
    return lines


def _places(df: pd.DataFrame, nodes: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Say where the box of each namespace stands."""
    boxes: dict[tuple[str, str], dict[str, Any]] = {}
    left = 0.0
    for node in nodes:
        spaces = df[df["node"] == node].drop_duplicates("place")
        by_floor = [spaces[spaces["kind"].map(_FLOOR_OF) == floor]["place"] for floor in range(4)]
        columns = max(1, *(len(places) for places in by_floor[:3]))
        for floor, places in enumerate(by_floor):
            for number, place in enumerate(places):
                words = _words(place, df[(df["node"] == node) & (df["place"] == place)])
                wide = columns * (_WIDE + _GAP) - _GAP if floor == 3 else _WIDE
                x = left + number * (_WIDE + _GAP)
                boxes[node, place] = {"floor": floor, "x": x, "w": wide, "words": words}
        left += columns * (_WIDE + _GAP) + 2 * _GAP
    y = 0.0
    for floor in range(4):
        tall = _tallest(boxes, floor)
        for box in boxes.values():
            if box["floor"] == floor:
                box["h"] = _LINE * len(box["words"]) + 0.12
                box["y"] = y - box["h"]
        y -= tall + (0.55 if tall else 0)
    return boxes


def _tallest(boxes: dict[tuple[str, str], dict[str, Any]], floor: int) -> float:
    return max(
        (_LINE * len(box["words"]) + 0.12 for box in boxes.values() if box["floor"] == floor),
        default=0.0,
    )


def _draw_box(axes: Axes, box: dict[str, Any]) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0.04,rounding_size=0.08"
    frame = FancyBboxPatch(
        (box["x"], box["y"]), box["w"], box["h"], boxstyle=style, facecolor="white", edgecolor="black"
    )
    axes.add_patch(frame).set_zorder(3)
    for number, words in enumerate(box["words"]):
        top = box["y"] + box["h"] - 0.06 - _LINE * number
        weight = "bold" if number == 0 else "normal"
        size = SMALL if number == 0 else 8
        axes.text(box["x"] + 0.08, top, words, va="top", fontsize=size, fontweight=weight, zorder=4)


def _draw_pairs(
    axes: Axes, df: pd.DataFrame, boxes: dict[tuple[str, str], dict[str, Any]], inks: dict[str, Any]
) -> None:
    """Draw a line for each veth pair, in the look of the network that it belongs to."""
    networks = dict(zip(zip(df["node"], df["place"], strict=True), df["network"], strict=True))
    drawn: dict[tuple[str, str], int] = {}
    for row in df.dropna(subset=["peer_place"]).itertuples():
        one, other = (str(row.node), str(row.place)), (str(row.node), str(row.peer_place))
        if other not in boxes or boxes[one]["floor"] >= boxes[other]["floor"]:
            continue
        name = networks[other] if isinstance(networks[other], str) else "docker_gwbridge"
        colour, dash = inks.get(name, (GREY, "-"))
        number = drawn[one] = drawn.get(one, 0) + 1
        x = boxes[one]["x"] + 0.35 * number + 0.1
        end = min(max(x, boxes[other]["x"] + 0.2), boxes[other]["x"] + boxes[other]["w"] - 0.2)
        bottom, top = boxes[one]["y"], boxes[other]["y"] + boxes[other]["h"]
        axes.plot([x, end], [bottom, top], color=colour, linestyle=dash, linewidth=1.6, zorder=1)


def _draw_vxlans(
    axes: Axes, df: pd.DataFrame, boxes: dict[tuple[str, str], dict[str, Any]], inks: dict[str, Any]
) -> None:
    """Draw a line through the overlay's namespaces of one network on all nodes, with its VNI."""
    vxlans = df[df["device"] == "vxlan"]
    for number, (network, rows) in enumerate(vxlans.groupby("network", sort=False)):
        ends = [boxes[key] for key in zip(rows["node"], rows["place"], strict=True) if key in boxes]
        if len(ends) < 2:
            continue
        colour, dash = inks[str(network)]
        y = min(box["y"] for box in ends) - 0.14 - 0.09 * number
        xs = [box["x"] + 0.5 * box["w"] + 0.12 * number for box in ends]
        axes.plot([min(xs), max(xs)], [y, y], color=colour, linestyle=dash, linewidth=2.4, zorder=2)
        for x, box in zip(xs, ends, strict=True):
            axes.plot([x, x], [y, box["y"]], color=colour, linestyle=dash, linewidth=2.4, zorder=2)


def _legend(axes: Axes, inks: dict[str, tuple[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=2, label=name)
        for name, (colour, dash) in inks.items()
    ]
    axes.legend(handles=lines, loc="upper right", ncols=len(lines), bbox_to_anchor=(1, 1.02))
