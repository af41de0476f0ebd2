"""Plots of neighbour tables and of frames (labs 03 and 05)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREEN_INK,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    VERMILLION_INK,
    address_order,
    draws,
    hide_spines,
    mark,
    new_axes,
    whole_numbers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


_STATES = {
    "PERMANENT": (BLUE, "D"),
    "REACHABLE": (GREEN, "o"),
    "DELAY": (GREEN, "v"),
    "PROBE": (GREEN, "v"),
    "STALE": (ORANGE, "s"),
    "FAILED": (VERMILLION, "X"),
    "INCOMPLETE": (VERMILLION, "X"),
}
# Column -> protocol, colour, hatch.
_PROTOCOLS = {
    "arp_frames": ("ARP", ORANGE, "///"),
    "icmp_frames": ("ICMP", SKY, ""),
    "tcp_frames": ("TCP", PURPLE, ".."),
}
_ENTRIES = {"none": "no entry", "learned": "entry learned", "by hand": "entry by hand"}
_KINDS = [("ARP", ORANGE, "///"), ("ICMP", BLUE, ""), ("other", GREY, "..")]


@draws("experiments.reach_by_entry")
def reach_by_entry(
    df: pd.DataFrame, *, title: str = "What leaves the container, and what comes of it"
) -> Axes:
    """Draw `experiments.reach_by_entry`: frames that left, by protocol, for each entry and tool."""
    axes = new_axes(1.4 + 0.45 * len(df), title)
    columns = list(_PROTOCOLS)
    # Each bar begins where the one of the protocol before ends.
    lefts = df[columns].cumsum(axis=1) - df[columns]
    for column, (protocol, colour, hatch) in _PROTOCOLS.items():
        axes.barh(
            range(len(df)),
            df[column],
            0.7,
            left=lefts[column],
            color=colour,
            hatch=hatch,
            label=protocol,
        )
    totals = df[columns].sum(axis=1)
    most = float(totals.max())
    for y, (total, reached) in enumerate(zip(totals, df["reached"], strict=True)):
        nothing = "" if total else "nothing left; "
        axes.text(
            float(total) + most * 0.02 + 0.02,
            y,
            f"{nothing}{mark(reached)} {'answered' if reached else 'no answer'}",
            va="center",
            fontweight="bold",
            color=GREEN_INK if reached else VERMILLION_INK,
        )
    heads = [f"{_ENTRIES[entry]}: {tool}" for entry, tool in zip(df["entry"], df["tool"], strict=True)]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xlim(0, max(most, 1) * 1.35)
    whole_numbers(axes.xaxis)
    axes.set_xlabel("frames that left for the target, seen by tcpdump")
    axes.legend(loc="lower right")
    return axes


@draws("experiments.neighbour_tables")
def neighbour_tables(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.neighbour_tables`: looks from left to right, one row per address."""
    places = ", ".join(dict.fromkeys(df["place"]))
    title = title or f"Neighbour entries of {places}, look by look"
    looks = list(df["look"].cat.categories)
    heads = {
        row.address: f"{row.address}  {row.owner}\n{row.network}"
        for row in df.astype({"owner": object}).fillna({"owner": "?"}).itertuples()
    }
    addresses = sorted(heads, key=address_order, reverse=True)
    axes = new_axes(1.4 + 0.62 * max(len(addresses), 1), title, pad=14)
    for row in df.itertuples():
        x, y = looks.index(row.look), addresses.index(row.address)
        colour, marker = _STATES.get(str(row.state), (GREY, "o"))
        axes.plot(x, y, marker=marker, color=colour, markersize=13, linestyle="none")
        axes.annotate(
            str(row.state),
            (x, y),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    filled = set(df["look"])
    names = [str(look) if look in filled else f"{look}\n(no entry)" for look in looks]
    axes.set_xticks(range(len(looks)), names)
    axes.set_yticks(range(len(addresses)), [heads[address] for address in addresses])
    axes.set_xlim(-0.4, len(looks) - 0.2)
    axes.set_ylim(-0.6, max(len(addresses), 1) - 0.4)
    axes.tick_params(length=0)
    axes.grid(axis="y", alpha=0.25)
    hide_spines(axes, "left", "bottom")
    axes.xaxis.tick_top()
    return axes


@draws("experiments.frames")
def frames(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.frames`: how many frames of each kind were recorded at each spot."""
    spots = list(df["spot"].cat.categories)
    counts = df.groupby(["spot", "kind"], observed=False).size()
    crossed = [f"{int(counts.get(('wire', kind), 0))} {kind}" for kind in ("ARP", "ICMP")]
    title = title or f"{' and '.join(crossed)} frames crossed the wire"
    kinds = [kind for kind in _KINDS if kind[0] != "other" or kind[0] in set(df["kind"])]
    axes = new_axes(1.2 + 0.42 * len(spots) * len(kinds), title)
    height = 0.8 / len(kinds)
    for number, (kind, colour, hatch) in enumerate(kinds):
        for y, spot in enumerate(reversed(spots)):
            count = int(counts.get((spot, kind), 0))
            middle = y + 0.4 - height * (number + 0.5)
            axes.barh(middle, count, height * 0.9, color=colour, hatch=hatch)
            weight = "normal" if count else "bold"
            axes.text(count, middle, f"  {count} {kind}", va="center", fontweight=weight)
    where = {spot: f"the wire:\nVXLAN at {_node_of(df, spot)}" for spot in spots if spot == "wire"}
    where |= {spot: f"at {spot}\non {_node_of(df, spot)}" for spot in spots if spot != "wire"}
    axes.set_yticks(range(len(spots)), [where[spot] for spot in reversed(spots)])
    axes.tick_params(length=0)
    axes.set_xlim(0, max(float(counts.max()), 1.0) * 1.15)
    axes.set_xlabel("frames recorded")
    whole_numbers(axes.xaxis)
    return axes


def _node_of(df: pd.DataFrame, spot: str) -> str:
    """Return the node of a spot, as far as anything was recorded there."""
    nodes = df[df["spot"] == spot]["node"]
    return str(nodes.iloc[0]) if len(nodes) else "its node"
