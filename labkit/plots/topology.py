"""The picture of the network that a swarm's nodes and tasks stand in (labs 02, 04, 05, 07, 11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PEACH,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    VERMILLION_INK,
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
_ABOVE, _LANE = 0.55, 0.09  # between floors; between lines that go past a floor
_LONGEST = 15  # characters of a name in a box

Boxes = dict[tuple[str, str], dict[str, Any]]  # of a node's place
Inks = dict[str, tuple[str, Any]]  # a network's colour and dash
Ends = tuple[tuple[str, str], tuple[str, str]]
Line = tuple[list[float], list[float]]


@draws("experiments.topology")
def topology(df: pd.DataFrame, *, networks: Iterable[str] = (), title: str | None = None) -> Axes:
    """Draw `experiments.topology`: the namespaces of each node as boxes, and the pairs that join them.

    Tasks stand on top, below them what balances their load, then the overlays' own namespaces, then the
    nodes; a line between nodes is a VXLAN with its number. With `networks` only these are drawn, and
    what has to do with them.
    """
    return _drawn(_chosen(df, set(networks)) if networks else df, title)[0]


@draws("experiments.packet")
def packet(
    df: pd.DataFrame, *, network: pd.DataFrame, networks: Iterable[str] = (), title: str | None = None
) -> Axes:
    """Draw `experiments.packet` into the picture of the network: the request's way, step by step.

    `network` is the table of `experiments.topology`. The places that the request came by have a number
    and a frame; below stands what each of them made of it, and which of its rules counted it.
    """
    shown = _chosen(network, set(networks) or {"ingress"})
    steps = [line for where, what in told(df) for line in (where, f"      {what}")]
    axes, boxes = _drawn(shown, title or _way(df), below=0.24 * len(steps) + 0.2)
    keys = [(str(row.node), _box_of(row)) for row in df.itertuples()]
    _light(axes, shown, boxes, keys)
    for number, key in enumerate(keys, 1):
        box = boxes[key]
        axes.add_patch(_frame(box, facecolor=PEACH, edgecolor=VERMILLION, linewidth=2, zorder=3))
        circle = {"boxstyle": "circle,pad=0.25", "facecolor": VERMILLION_INK, "edgecolor": "white"}
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white", "zorder": 6}
        x, y = box["x"] + box["w"] - 0.05, _top(box)
        axes.text(x, y, str(number), fontweight="bold", bbox=circle, **look)
    bottom = min(box["y"] for box in boxes.values()) - 0.35
    for number, words in enumerate(steps):
        axes.text(0, bottom - 0.24 * number, words, va="top", fontsize=SMALL)
    return axes


def _drawn(df: pd.DataFrame, title: str | None, *, below: float = 0.0) -> tuple[Axes, Boxes]:
    """Draw the network; returns its axes, with so much room below it, and where the boxes stand."""
    nodes = list(dict.fromkeys(df["node"]))
    boxes = _places(df, nodes)
    height = 2.0 + below + sum(_tallest(boxes, floor) for floor in range(4)) * 0.9
    axes = new_axes(max(4.5, height), title or _title(df))
    inks = _inks(df)
    _draw_pairs(axes, df, boxes, inks)
    _draw_vxlans(axes, df, boxes, inks)
    for box in boxes.values():
        _draw_box(axes, box)
    width = max(box["x"] + box["w"] for box in boxes.values()) + _GAP
    axes.set_xlim(-_GAP, width)
    axes.set_ylim(min(box["y"] for box in boxes.values()) - 0.25 - below, 0.55)
    axes.set_xticks([])
    axes.set_yticks([])
    hide_spines(axes)
    _legend(axes, inks)
    return axes, boxes


def _box_of(row: Any) -> str:
    """Return a step's place as the picture of the network calls it."""
    place = str(row.place)
    return "ingress_sbox" if place.endswith("/ingress_sbox") else place.removesuffix(" sandbox")


def _way(df: pd.DataFrame) -> str:
    first, last = df.iloc[0], df.iloc[-1]
    asked = f"One request to port {first['destination_port']} of {first['node']}"
    return f"{asked}, answered on {last['node']}"


def told(df: pd.DataFrame) -> list[tuple[str, str]]:
    """Say of each row of `experiments.packet` where it was and what counted it, and what it became."""

    def ends(row: dict[Any, Any], new: str) -> str:
        source, destination = (
            f"{row[f'{new}{end}']}:{row[f'{new}{end}_port']}" for end in ("source", "destination")
        )
        return f"{source} → {destination}"

    found = []
    for row in df.to_dict("records"):
        came, goes = ends(row, ""), ends(row, "new_")
        counted = f", counted by {row['counted']}" if row["counted"] else ""
        changed = f"{came}   becomes   {goes}" if came != goes else f"{came}   goes on as it came"
        found.append((f"{row['order']}   {row['place']}{counted}", changed))
    return found


def _light(axes: Axes, df: pd.DataFrame, boxes: Boxes, keys: Sequence[tuple[str, str]]) -> None:
    """Draw the lines that a request took once more, broad and below the others."""
    look: dict[str, Any] = {"color": VERMILLION, "linewidth": 6, "alpha": 0.45, "zorder": 0}
    look["solid_capstyle"] = "round"
    pairs = {ends: line for ends, line, _ in _pairs(df, boxes)}
    vxlans = {network: (xs, y) for network, xs, y in _vxlans(df, boxes)}
    for one, other in pairwise(keys):
        meeting = [ends for ends in pairs if set(ends) == {one, other}]
        if meeting:
            axes.plot(*pairs[meeting[0]], **look)
            continue
        # Both are on an overlay: each has a pair into its node's namespace of it.
        shared = {
            low[1]
            for high, low in pairs
            if high == one and (other, (other[0], low[1])) in pairs and low[1].startswith("overlay ")
        }
        for overlay in sorted(shared)[:1]:
            for end in (one, other):
                axes.plot(*pairs[end, (end[0], overlay)], **look)
            xs, y = vxlans.get(overlay.removeprefix("overlay "), ({}, 0.0))
            if one[0] != other[0] and {one[0], other[0]} <= set(xs):
                tops = [boxes[end[0], overlay]["y"] for end in (one, other)]
                left, right = xs[one[0]], xs[other[0]]
                axes.plot([left, left, right, right], [tops[0], y, y, tops[1]], **look)


def _chosen(df: pd.DataFrame, networks: set[str]) -> pd.DataFrame:
    """Keep the nodes, the tasks, and the namespaces of some networks."""
    return df[df["network"].isin(networks) | df["kind"].isin(["node", "task"])]


def _title(df: pd.DataFrame) -> str:
    spaces = df.drop_duplicates(["node", "place"])
    counts = spaces["kind"].value_counts()
    told = ", ".join(f"{counts[kind]} {kind}" for kind in _FLOOR_OF if kind in counts)
    return f"{len(spaces)} network namespaces: {told}"


def _inks(df: pd.DataFrame) -> Inks:
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


def _places(df: pd.DataFrame, nodes: Sequence[str]) -> Boxes:
    """Say where the box of each namespace stands."""
    boxes: Boxes = {}
    left = 0.0
    lanes = {node: sum(1 for _ in _past(df, node)) for node in nodes}
    for node in nodes:
        left += _LANE * lanes[node]
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
        y -= tall + (_ABOVE + _LANE * max(lanes.values()) if tall else 0)
    return boxes


def _tallest(boxes: Boxes, floor: int) -> float:
    return max(
        (_LINE * len(box["words"]) + 0.12 for box in boxes.values() if box["floor"] == floor),
        default=0.0,
    )


def _frame(box: dict[str, Any], **look: Any) -> Any:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0.04,rounding_size=0.08"
    return FancyBboxPatch((box["x"], box["y"]), box["w"], box["h"], boxstyle=style, **look)


def _draw_box(axes: Axes, box: dict[str, Any]) -> None:
    axes.add_patch(_frame(box, facecolor="white", edgecolor="black", zorder=3))
    for number, words in enumerate(box["words"]):
        top = _top(box) - 0.06 - _LINE * number
        weight = "bold" if number == 0 else "normal"
        size = SMALL if number == 0 else 8
        axes.text(box["x"] + 0.08, top, words, va="top", fontsize=size, fontweight=weight, zorder=5)


def _past(df: pd.DataFrame, node: str) -> Iterator[Ends]:
    """Yield the pairs of a node whose ends have another floor between them."""
    mine = df[df["node"] == node]
    floors = {str(row.place): _FLOOR_OF[str(row.kind)] for row in mine.itertuples()}
    for row in mine.dropna(subset=["peer_place"]).itertuples():
        low, high = floors[str(row.place)], floors.get(str(row.peer_place), -1)
        if set(range(low + 1, high)) & set(floors.values()):
            yield (node, str(row.place)), (node, str(row.peer_place))


def _pairs(df: pd.DataFrame, boxes: Boxes) -> Iterator[tuple[Ends, Line, str]]:
    """Yield the line of each veth pair, from the upper box to the lower one, and its network.

    One with a floor between its ends goes past that, left of the node's boxes: no line is behind a box.
    """
    networks = dict(zip(zip(df["node"], df["place"], strict=True), df["network"], strict=True))
    past = {node: list(_past(df, node)) for node in dict.fromkeys(df["node"])}
    tops = {box["floor"]: _top(box) for box in boxes.values()}
    bottoms = {floor: top - _tallest(boxes, floor) for floor, top in tops.items()}
    drawn: dict[tuple[str, str], int] = {}
    for row in df.dropna(subset=["peer_place"]).itertuples():
        one, other = (str(row.node), str(row.place)), (str(row.node), str(row.peer_place))
        if other not in boxes or boxes[one]["floor"] >= boxes[other]["floor"]:
            continue
        name = networks[other] if isinstance(networks[other], str) else "docker_gwbridge"
        number = drawn[one] = drawn.get(one, 0) + 1
        x = boxes[one]["x"] + 0.35 * number + 0.1
        end = min(max(x, boxes[other]["x"] + 0.2), boxes[other]["x"] + boxes[other]["w"] - 0.2)
        xs, ys = [x, end], [boxes[one]["y"], _top(boxes[other])]
        if (one, other) in past[one[0]]:
            lane = _LANE * (past[one[0]].index((one, other)) + 1)
            aside = min(box["x"] for key, box in boxes.items() if key[0] == one[0]) - lane - 0.06
            leave = bottoms[boxes[one]["floor"]] - 0.08 - lane
            come = tops[boxes[other]["floor"]] + 0.08 + lane
            end = boxes[other]["x"] + lane
            xs, ys = [x, x, aside, aside, end, end], [ys[0], leave, leave, come, come, ys[1]]
        yield (one, other), (xs, ys), name


def _vxlans(df: pd.DataFrame, boxes: Boxes) -> Iterator[tuple[str, dict[str, float], float]]:
    """Yield each network's VXLAN: its name, where each node's end stands, and how low its line is."""
    vxlans = df[df["device"] == "vxlan"]
    for number, (network, rows) in enumerate(vxlans.groupby("network", sort=False)):
        ends = {
            key[0]: boxes[key] for key in zip(rows["node"], rows["place"], strict=True) if key in boxes
        }
        if len(ends) < 2:
            continue
        y = min(box["y"] for box in ends.values()) - 0.14 - 0.09 * number
        xs = {node: box["x"] + 0.5 * box["w"] + 0.12 * number for node, box in ends.items()}
        yield str(network), xs, y


def _draw_pairs(axes: Axes, df: pd.DataFrame, boxes: Boxes, inks: Inks) -> None:
    """Draw a line for each veth pair, in the look of the network that it belongs to."""
    for _, (xs, ys), name in _pairs(df, boxes):
        colour, dash = inks.get(name, (GREY, "-"))
        axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=1.6, zorder=1)


def _draw_vxlans(axes: Axes, df: pd.DataFrame, boxes: Boxes, inks: Inks) -> None:
    """Draw a line through the overlay's namespaces of one network on all nodes, with its VNI."""
    for network, xs, y in _vxlans(df, boxes):
        colour, dash = inks[network]
        look: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": 2.4, "zorder": 2}
        axes.plot([min(xs.values()), max(xs.values())], [y, y], **look)
        for node, x in xs.items():
            axes.plot([x, x], [y, boxes[node, f"overlay {network}"]["y"]], **look)


def _top(box: dict[str, Any]) -> float:
    return float(box["y"] + box["h"])


def _legend(axes: Axes, inks: Inks) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=2, label=name)
        for name, (colour, dash) in inks.items()
    ]
    axes.legend(handles=lines, loc="upper right", ncols=len(lines), bbox_to_anchor=(1, 1.02))
