"""Plots of the wire between the nodes: what is read there, how long and how fast (lab 09)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import BLUE, GREEN, GREY, ORANGE, VERMILLION, WIDTH, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = {"VXLAN": (ORANGE, "///", "in plain (VXLAN)"), "ESP": (BLUE, "", "encrypted (ESP)")}


def overheard(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.overheard`: for each way, the packets of each kind and those with the word."""
    ways = list(df["way"].cat.categories)
    read = [way for way in ways if df[df["way"] == way]["has_word"].any()]
    title = (
        title or f"The word was read in {len(read)} of {len(ways)} ways: {', '.join(read) or 'none'}"
    )
    axes = new_axes(1.4 + 0.8 * len(ways), title)
    bars = [
        *((kind, df["kind"] == kind, colour, hatch) for kind, (colour, hatch, _) in _KINDS.items()),
        ("with the word", df["has_word"], VERMILLION, "xx"),
    ]
    for y, way in enumerate(ways):
        for number, (label, chosen, colour, hatch) in enumerate(bars):
            count = int((chosen & (df["way"] == way)).sum())
            middle = y - 0.27 + 0.27 * number
            axes.barh(middle, count, 0.24, color=colour, hatch=hatch, edgecolor="white")
            weight = "bold" if label == "with the word" else "normal"
            axes.text(count, middle, f"  {count} {label}", va="center", fontsize=10, fontweight=weight)
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlim(0, float(df.groupby("way", observed=False).size().max()) * 1.25 + 1)
    axes.set_xlabel("packets read on the wire")
    return axes


def crossings(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.crossings`: how pings came to the target's node, and who got an answer."""
    from matplotlib.ticker import MaxNLocator

    answered = int(df["reached"].sum())
    title = title or f"How pings come to the target's node; {answered} of {len(df)} rows are answered"
    axes = new_axes(1.5 + 0.5 * len(df), title)
    for kind, (colour, hatch, label) in _KINDS.items():
        # The two never come together on one network, so the bars may begin at the same place.
        counts = df[f"{kind.lower()}_packets"]
        axes.barh(
            range(len(df)), counts, 0.7, color=colour, hatch=hatch, edgecolor="white", label=label
        )
    most = float(df[["vxlan_packets", "esp_packets"]].to_numpy().max())
    for y, row in enumerate(df.itertuples()):
        count = max(int(str(row.vxlan_packets)), int(str(row.esp_packets)))
        marked = f"{row.marked_packets} marked, {row.dropped_packets} dropped"
        axes.text(
            count + most * 0.02,
            y,
            f"{'✓ answered' if row.reached else '✗ no answer'};  {marked}",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=GREEN if row.reached else VERMILLION,
        )
    several = len(set(df["change"])) > 1
    heads = [f"{row.change}: {row.network}" if several else str(row.network) for row in df.itertuples()]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlim(0, max(most, 1) * 1.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("pings recorded at the uplink of the target's node")
    axes.figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=10)
    return axes


def wire_sizes(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.wire_sizes`: frames on the wire for each payload, and what was added."""
    import matplotlib.pyplot as plt

    networks = list(dict.fromkeys(df["network"]))
    sent = df[df["wire_bytes"].notna()]
    told = []
    for network in networks:
        added = sent[sent["network"] == network]["added_bytes"]
        if len(added):
            least, most = int(added.min()), int(added.max())
            told.append(f"{network} {least}" + (f" to {most}" if most > least else ""))
    title = title or f"Bytes added to a frame: {', '.join(told) or 'no frame left'}"
    whole: Axes
    extra: Axes
    figure, (whole, extra) = plt.subplots(1, 2, figsize=(WIDTH, 4.2), layout="constrained")
    looks = [(ORANGE, "o", "-"), (BLUE, "s", "--"), (GREEN, "^", ":")]
    # Evenly spaced at the right, so that sizes that differ by one are seen apart.
    sizes = sorted(set(df["payload_bytes"]))
    for network, (colour, marker, dash) in zip(networks, looks, strict=False):
        mine = df[df["network"] == network].sort_values("payload_bytes")
        there, refused = mine[mine["wire_bytes"].notna()], mine[mine["wire_bytes"].isna()]
        places = [sizes.index(size) for size in there["payload_bytes"]]
        for axes, x, column in (
            (whole, list(there["payload_bytes"]), "wire_bytes"),
            (extra, places, "added_bytes"),
        ):
            axes.plot(
                x,
                there[column].astype(float),
                color=colour,
                marker=marker,
                linestyle=dash,
                markerfacecolor="white",
                label=network,
            )
        whole.plot(
            refused["payload_bytes"],
            [0] * len(refused),
            color=colour,
            marker="X",
            markersize=9,
            linestyle="none",
            label=f"{network}: not sent",
        )
    if len(sent):
        longest = int(sent["wire_bytes"].max())
        whole.axhline(longest, color=GREY, linewidth=1)
        whole.annotate(
            f"longest: {longest}",
            (0.02, longest),
            xycoords=("axes fraction", "data"),
            xytext=(0, -4),
            textcoords="offset points",
            va="top",
            fontsize=10,
        )
    whole.set_ylabel("bytes of the frame on the wire")
    extra.set_ylabel("bytes added by the overlay")
    extra.set_ylim(bottom=0)
    extra.set_xticks(range(len(sizes)), [str(size) for size in sizes], rotation=90)
    for axes in (whole, extra):
        axes.set_xlabel("payload of the ping in bytes")
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    whole.legend(loc="upper left", bbox_to_anchor=(0, 0.9), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return whole


def speeds(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.speeds`: every sample, and each route's median beside the first's."""
    import matplotlib.pyplot as plt

    routes = list(df["route"].cat.categories)
    title = title or f"{df['trial'].nunique()} trials; the line is the median, a dot is one sample"
    figure, panels = plt.subplots(
        1, 2, figsize=(WIDTH, 1.5 + 0.55 * len(routes)), sharey=True, layout="constrained"
    )
    for axes, column, label in zip(
        panels,
        ("connect_ms", "rate_mbps"),
        ("time to connect, ms (less is better)", "throughput, Mbit/s (more is better)"),
        strict=True,
    ):
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
            axes.text(most * 1.06, y, f"{median / first:.2f} times", va="center", fontsize=10)
        axes.set_xlim(0, most * 1.22)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0, labelsize=10)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    left: Axes = panels[0]
    left.set_yticks(range(len(routes)), routes)
    left.invert_yaxis()
    figure.suptitle(
        f"{title}\nbeside each route: its median in terms of that of {routes[0]}",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    return left
