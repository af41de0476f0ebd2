"""Plots of the wire between the nodes: what is read there, how long and how fast (lab 09)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREEN_INK,
    GREY,
    ORANGE,
    SMALL,
    VERMILLION,
    VERMILLION_INK,
    draws,
    figure_title,
    hide_spines,
    mark,
    new_axes,
    new_panels,
    whole_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = {"VXLAN": (ORANGE, "///", "in plain (VXLAN)"), "ESP": (BLUE, "", "encrypted (ESP)")}
_NETWORKS = [(ORANGE, "o", "-"), (BLUE, "s", "--"), (GREEN, "^", ":")]


@draws("experiments.overheard")
def overheard(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.overheard`: for each way, the packets of each kind and those with the word."""
    ways = list(df["way"].cat.categories)
    read = [way for way in ways if df[df["way"] == way]["has_word"].any()]
    found = f"The word was read in {len(read)} of {len(ways)} ways: {', '.join(read) or 'none'}"
    axes = new_axes(1.4 + 0.8 * len(ways), title or found)
    bars = [
        *((kind, df["kind"] == kind, colour, hatch) for kind, (colour, hatch, _) in _KINDS.items()),
        ("with the word", df["has_word"], VERMILLION, "xx"),
    ]
    for y, way in enumerate(ways):
        for number, (label, chosen, colour, hatch) in enumerate(bars):
            count = int((chosen & (df["way"] == way)).sum())
            middle = y - 0.27 + 0.27 * number
            axes.barh(middle, count, 0.24, color=colour, hatch=hatch)
            weight = "bold" if label == "with the word" else "normal"
            axes.text(count, middle, f"  {count} {label}", va="center", fontweight=weight)
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xlim(0, float(df.groupby("way", observed=False).size().max()) * 1.25 + 1)
    axes.set_xlabel("packets read on the wire")
    return axes


@draws("experiments.crossings")
def crossings(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.crossings`: how pings came to the target's node, and who got an answer."""
    answered = int(df["reached"].sum())
    title = title or f"How pings come to the target's node; {answered} of {len(df)} rows are answered"
    axes = new_axes(1.5 + 0.5 * len(df), title)
    for kind, (colour, hatch, label) in _KINDS.items():
        # The two never come together on one network, so the bars may begin at the same place.
        counts = df[f"{kind.lower()}_packets"]
        axes.barh(range(len(df)), counts, 0.7, color=colour, hatch=hatch, label=label)
    most = float(df[["vxlan_packets", "esp_packets"]].to_numpy().max())
    for y, row in enumerate(df.itertuples()):
        count = max(int(str(row.vxlan_packets)), int(str(row.esp_packets)))
        good = bool(row.reached)
        counted = f"{row.marked_packets} marked, {row.dropped_packets} dropped"
        axes.text(
            count + most * 0.02,
            y,
            f"{mark(good)} {'answered' if good else 'no answer'};  {counted}",
            va="center",
            fontweight="bold",
            color=GREEN_INK if good else VERMILLION_INK,
        )
    several = len(set(df["change"])) > 1
    heads = [f"{row.change}: {row.network}" if several else str(row.network) for row in df.itertuples()]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xlim(0, max(most, 1) * 1.7)
    whole_numbers(axes.xaxis)
    axes.set_xlabel("pings recorded at the uplink of the target's node")
    axes.figure.legend(loc="outside lower right", ncols=2)
    return axes


@draws("experiments.wire_sizes")
def wire_sizes(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.wire_sizes`: frames on the wire for each payload, and what was added."""
    networks = list(dict.fromkeys(df["network"]))
    title = title or f"Bytes added to a frame: {_added(df, networks) or 'no frame left'}"
    figure, ((whole, extra),) = new_panels(1, 2, 4.2)
    # Evenly spaced at the right, so that sizes that differ by one are seen apart.
    sizes = sorted(set(df["payload_bytes"]))
    for network, (colour, marker, dash) in zip(networks, _NETWORKS, strict=False):
        mine = df[df["network"] == network].sort_values("payload_bytes")
        sent, refused = mine[mine["wire_bytes"].notna()], mine[mine["wire_bytes"].isna()]
        look = {"color": colour, "marker": marker, "linestyle": dash, "markerfacecolor": "white"}
        payloads = list(sent["payload_bytes"])
        whole.plot(payloads, sent["wire_bytes"].astype(float), label=network, **look)
        extra.plot([sizes.index(size) for size in payloads], sent["added_bytes"].astype(float), **look)
        whole.plot(
            refused["payload_bytes"],
            [0] * len(refused),
            color=colour,
            marker="X",
            markersize=9,
            linestyle="none",
            label=f"{network}: not sent",
        )
    _draw_longest(whole, df)
    whole.set_ylabel("bytes of the frame on the wire")
    extra.set_ylabel("bytes added by the overlay")
    extra.set_ylim(bottom=0)
    extra.set_xticks(range(len(sizes)), [str(size) for size in sizes], rotation=90)
    for axes in (whole, extra):
        axes.set_xlabel("payload of the ping in bytes")
        axes.grid()
    whole.legend(loc="upper left", bbox_to_anchor=(0, 0.9), fontsize=SMALL)
    figure_title(figure, title)
    left: Axes = whole
    return left


def _added(df: pd.DataFrame, networks: Sequence[str]) -> str:
    """Return how many bytes each network adds, as `NETWORK 50 to 72`."""
    sent = df[df["wire_bytes"].notna()]
    words = []
    for network in networks:
        added = sent[sent["network"] == network]["added_bytes"]
        if len(added):
            least, most = int(added.min()), int(added.max())
            words.append(f"{network} {least}" + (f" to {most}" if most > least else ""))
    return ", ".join(words)


def _draw_longest(axes: Axes, df: pd.DataFrame) -> None:
    """Draw a line at the longest frame that was on the wire."""
    if df["wire_bytes"].isna().all():
        return
    longest = int(df["wire_bytes"].max())
    axes.axhline(longest, color=GREY, linewidth=1)
    axes.annotate(
        f"longest: {longest}",
        (0.02, longest),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        va="top",
    )


@draws("experiments.speeds")
def speeds(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.speeds`: every sample, and each route's median beside the first's."""
    routes = list(df["route"].cat.categories)
    title = title or f"{df['trial'].nunique()} trials; the line is the median, a dot is one sample"
    figure, (panels,) = new_panels(1, 2, 1.5 + 0.55 * len(routes), sharey=True)
    columns = {
        "connect_ms": "time to connect, ms (less is better)",
        "rate_mbps": "throughput, Mbit/s (more is better)",
    }
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        first = 0.0
        most = float(df[column].max())
        for y, route in enumerate(routes):
            values = df[df["route"] == route][column].dropna()
            if values.empty:
                continue
            median = float(values.median())
            first = first or median
            axes.plot(values, [y] * len(values), marker="o", color=BLUE, alpha=0.45, linestyle="none")
            axes.plot([median, median], [y - 0.35, y + 0.35], color=VERMILLION, linewidth=3)
            axes.text(most * 1.06, y, f"{median / first:.2f} times", va="center")
        axes.set_xlim(0, most * 1.22)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        hide_spines(axes, "left")
    left: Axes = panels[0]
    left.set_yticks(range(len(routes)), routes)
    left.invert_yaxis()
    figure_title(figure, f"{title}\nbeside each route: its median, divided by that of {routes[0]}")
    return left
