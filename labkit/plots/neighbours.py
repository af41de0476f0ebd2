"""Plots of neighbour tables and of frames (labs 03 and 05)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    last_number,
    new_axes,
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


def reach_by_entry(
    df: pd.DataFrame, *, title: str = "What leaves the container, and what comes of it"
) -> Axes:
    """Draw `experiments.reach_by_entry`: frames that left, by protocol, for each entry and tool."""
    from matplotlib.ticker import MaxNLocator

    axes = new_axes(1.4 + 0.45 * len(df), title)
    looks = [("arp_frames", "ARP", ORANGE, "///"), ("icmp_frames", "ICMP", SKY, "")]
    looks += [("tcp_frames", "TCP", PURPLE, "..")]
    most = float(df[[name for name, *_ in looks]].sum(axis=1).max())
    for y, (_, row) in enumerate(df.iterrows()):
        left = 0.0
        for name, label, colour, hatch in looks:
            count = int(row[name])
            known = label in axes.get_legend_handles_labels()[1]
            axes.barh(
                y,
                count,
                0.7,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=None if known else label,
            )
            left += count
        reached = bool(row["reached"])
        said = "answered" if reached else "no answer"
        nothing = "nothing left; " if not left else ""
        axes.text(
            left + most * 0.02 + 0.02,
            y,
            f"{nothing}{'✓' if reached else '✗'} {said}",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=GREEN if reached else VERMILLION,
        )
    names = {"none": "no entry", "learned": "entry learned", "by hand": "entry by hand"}
    heads = [f"{names[entry]}: {tool}" for entry, tool in zip(df["entry"], df["tool"], strict=True)]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlim(0, max(most, 1) * 1.35)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frames that left for the target, seen by tcpdump")
    axes.legend(loc="lower right", frameon=False, fontsize=10)
    return axes


def neighbour_tables(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.neighbour_tables`: looks from left to right, a row an address, a mark an entry."""
    places = ", ".join(dict.fromkeys(df["place"]))
    title = title or f"Neighbour entries of {places}, look by look"
    looks = list(df["look"].cat.categories)
    told = {
        row.address: f"{row.address}  {row.owner}\n{row.network}"
        for row in df.astype({"owner": object}).fillna({"owner": "?"}).itertuples()
    }
    addresses = sorted(told, key=last_number, reverse=True)
    axes = new_axes(1.4 + 0.62 * max(len(addresses), 1), title)
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
            fontsize=9,
        )
    filled = set(df["look"])
    heads = [str(look) if look in filled else f"{look}\n(no entry)" for look in looks]
    axes.set_xticks(range(len(looks)), heads)
    axes.set_yticks(range(len(addresses)), [told[address] for address in addresses])
    axes.set_xlim(-0.4, len(looks) - 0.2)
    axes.set_ylim(-0.6, max(len(addresses), 1) - 0.4)
    axes.tick_params(length=0, labelsize=10)
    axes.grid(axis="y", alpha=0.25)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.xaxis.tick_top()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=14)
    return axes


def frames(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.frames`: how many frames of each kind were recorded at each spot."""
    from matplotlib.ticker import MaxNLocator

    spots = list(df["spot"].cat.categories)
    counts = df.groupby(["spot", "kind"], observed=False).size()
    crossed = [f"{int(counts.get(('wire', kind), 0))} {kind}" for kind in ("ARP", "ICMP")]
    title = title or f"{' and '.join(crossed)} frames crossed the wire"
    kinds = [("ARP", ORANGE, "///"), ("ICMP", BLUE, ""), ("other", GREY, "..")]
    kinds = [kind for kind in kinds if kind[0] != "other" or kind[0] in set(df["kind"])]
    axes = new_axes(1.2 + 0.42 * len(spots) * len(kinds), title)
    height = 0.8 / len(kinds)
    for number, (kind, colour, hatch) in enumerate(kinds):
        for y, spot in enumerate(reversed(spots)):
            count = int(counts.get((spot, kind), 0))
            middle = y + 0.4 - height * (number + 0.5)
            axes.barh(middle, count, height * 0.9, color=colour, hatch=hatch, edgecolor="white")
            axes.text(
                count,
                middle,
                f"  {count} {kind}",
                va="center",
                fontsize=10,
                fontweight="normal" if count else "bold",
            )
    where = {spot: f"the wire:\nVXLAN at {_node_of(df, spot)}" for spot in spots if spot == "wire"}
    where |= {spot: f"at {spot}\non {_node_of(df, spot)}" for spot in spots if spot != "wire"}
    axes.set_yticks(range(len(spots)), [where[spot] for spot in reversed(spots)])
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlim(0, max(float(counts.max()), 1.0) * 1.15)
    axes.set_xlabel("frames recorded")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _node_of(df: pd.DataFrame, spot: str) -> str:
    nodes = df[df["spot"] == spot]["node"]
    return str(nodes.iloc[0]) if len(nodes) else "its node"
