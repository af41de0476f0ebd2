"""Plots of the experiments' tables: each takes a DataFrame and returns matplotlib Axes.

Only what was measured is drawn. Colours are those of Okabe and Ito, which colour-blind people tell
apart, and never stand alone: a word, a shape or a line style says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

GREEN, VERMILLION, BLUE, ORANGE = "#009E73", "#D55E00", "#0072B2", "#E69F00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#6E6E6E"

_WIDTH = 9.0  # inches: a notebook's cell, without scaling


def _axes(height: float, title: str, *, width: float = _WIDTH) -> Axes:
    """New axes with the title that says what is seen."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _outcome(group: pd.DataFrame) -> tuple[str, bool]:
    """A cell's word, and whether every probe in it was answered."""
    total, reached = len(group), int(group["reached"].sum())
    if 0 < reached < total:
        return f"{reached} of {total}", False
    first = group.iloc[0]
    if reached:
        said = str(first.get("answer") or "")
        return (said if first["protocol"] == "TCP" and 0 < len(said) <= 6 else "answers"), True
    codes = set(group["code"])
    return {(28,): "time-out", (7,): "refused"}.get(tuple(codes), "silent"), False


def _matrix(
    df: pd.DataFrame,
    axes: Axes,
    *,
    row: str,
    columns: Sequence[str],
    heads: Sequence[str],
    gap_after: Iterable[int] = (),
) -> Axes:
    """Draw one cell for each row label and each combination of the columns: mark, word and colour."""
    from matplotlib.patches import Rectangle

    rows = list(dict.fromkeys(df[row]))
    combos = list(dict.fromkeys(df[list(columns)].itertuples(index=False, name=None)))
    gaps = set(gap_after)
    between = " " if len(combos) < 6 else "\n"  # of mark and word
    at, x = [], 0.0
    for number in range(len(combos)):
        at.append(x)
        x += 1.35 if number in gaps else 1.0
    for y, name in enumerate(rows):
        for left, combo in zip(at, combos, strict=True):
            chosen = df[df[row] == name]
            for column, value in zip(columns, combo, strict=True):
                chosen = chosen[chosen[column] == value]
            if chosen.empty:
                continue
            word, good = _outcome(chosen)
            box: dict[str, Any] = {"edgecolor": "white", "linewidth": 2}
            if good:
                box["facecolor"] = GREEN
            else:
                box |= {"facecolor": "#FBE3D3", "edgecolor": VERMILLION, "hatch": "///", "linewidth": 1}
            axes.add_patch(Rectangle((left + 0.03, y + 0.06), 0.94, 0.88, **box))
            axes.text(
                left + 0.5,
                y + 0.5,
                f"{'✓' if good else '✗'}{between}{word}",
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold",
                color="white" if good else "black",
                bbox=None if good else {"facecolor": "#FBE3D3", "edgecolor": "none", "pad": 1.5},
            )
    axes.set_xlim(-0.05, at[-1] + 1.05)
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([left + 0.5 for left in at], heads)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], [str(name) for name in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def reach(df: pd.DataFrame, *, title: str = "Who reaches whom") -> Axes:
    """Draw `experiments.reach`: from each place (row) to each target, network and protocol (column)."""
    networks = list(dict.fromkeys(df["network"]))
    groups = [(network, protocol) for network in networks for protocol in ("ICMP", "TCP")]
    order = {group: number for number, group in enumerate(groups)}
    ranks = [order[pair] for pair in zip(df["network"], df["protocol"], strict=True)]
    df = df.assign(group_rank=ranks).sort_values("group_rank", kind="stable")
    targets = list(dict.fromkeys(df["target"]))
    # The order of rows is that of the probes, which the sorting by group keeps.
    heads = [f"to {target}" for _ in groups for target in targets]
    gaps = [len(targets) * number - 1 for number in range(1, len(groups))]
    axes = _axes(1.5 + 0.5 * df["place"].nunique(), title)
    _matrix(df, axes, row="place", columns=["group_rank", "target"], heads=heads, gap_after=gaps)
    ticks = axes.get_xticks()
    for number, (network, protocol) in enumerate(groups):
        mine = ticks[number * len(targets) : (number + 1) * len(targets)]
        tool = "ping" if protocol == "ICMP" else "curl"
        axes.annotate(
            f"{network}\n{tool} ({protocol})",
            (float(sum(mine)) / len(mine), 0),
            xytext=(0, 24),
            textcoords="offset points",
            ha="center",
            fontsize=11,
            fontweight="bold",
            annotation_clip=False,
        )
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=58)
    return axes


def ports(df: pd.DataFrame, *, title: str = "Which port answers after which step") -> Axes:
    """Draw `experiments.ports` of several steps: a row a step, a column a port."""
    found = list(dict.fromkeys(df["port"]))
    axes = _axes(1.2 + 0.5 * df["step"].nunique(), title)
    _matrix(df, axes, row="step", columns=["port"], heads=[f"port {port}" for port in found])
    return axes


def drops(df: pd.DataFrame, *, title: str = "TCP packets dropped, by chain") -> Axes:
    """Draw `experiments.drops`: packets dropped against curls made, a line a chain."""
    axes = _axes(3.8, title)
    styles = [(VERMILLION, "o", "-"), (BLUE, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":")]
    ends: dict[float, list[str]] = {}
    df = df.sort_values("requests", kind="stable")
    lines = df.groupby(["place", "chain"], sort=False)
    for ((place, chain), line), (colour, marker, dash) in zip(lines, styles * 9, strict=False):
        label = f"{chain} of {str(place).removesuffix(' sandbox')}"
        axes.plot(
            line["requests"],
            line["packets"],
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=2,
            markersize=8,
            label=label,
        )
        ends.setdefault(float(line["packets"].iloc[-1]), []).append(label)
    right = float(df["requests"].max())
    for height, labels in ends.items():
        axes.annotate(
            "\n".join(f"{height:g} in {label}" for label in labels),
            (right, height),
            xytext=(12, 0),
            textcoords="offset points",
            va="bottom" if len(labels) > 2 else "center",
            fontsize=10,
            annotation_clip=False,
        )
    axes.set_xlabel("curls from the source to the target")
    axes.set_ylabel("packets counted by DROP rules for TCP")
    axes.set_xticks(sorted(set(df["requests"])))
    axes.set_xlim(-0.1, right * 1.02 + 0.1)
    axes.set_ylim(bottom=-0.4)
    axes.grid(axis="y", alpha=0.3)
    return axes


def plumbing(df: pd.DataFrame, *, title: str = "What each network has for one path") -> Axes:
    """Draw `experiments.plumbing`: for each piece, how many each network has."""
    from matplotlib.ticker import MaxNLocator

    pieces = list(dict.fromkeys(df["piece"]))[::-1]
    networks = list(dict.fromkeys(df["network"]))
    axes = _axes(1.2 + 0.75 * len(pieces), title)
    looks = [(ORANGE, "///"), (BLUE, ""), (GREEN, "..")]
    height = 0.8 / len(networks)
    for number, (network, (colour, hatch)) in enumerate(zip(networks, looks, strict=False)):
        mine = df[df["network"] == network].set_index("piece")["count"]
        for y, piece in enumerate(pieces):
            count = int(mine[piece])
            middle = y + 0.4 - height * (number + 0.5)
            axes.barh(middle, count, height * 0.9, color=colour, hatch=hatch, edgecolor="white")
            axes.text(count + 0.06, middle, f"{count}  on {network}", va="center", fontsize=10)
    axes.set_yticks(range(len(pieces)), pieces)
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlim(0, float(df["count"].max()) * 1.3 + 0.5)
    axes.set_xlabel("how many were found")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def neighbour(
    df: pd.DataFrame, *, title: str = "What leaves the container, and what comes of it"
) -> Axes:
    """Draw `experiments.neighbour`: frames that left, by protocol, for each entry and tool."""
    from matplotlib.ticker import MaxNLocator

    axes = _axes(1.4 + 0.45 * len(df), title)
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


# --- Who answers ARP, and what a name stands for (labs 05 and 06) ---------------------------------

_STATES = {
    "PERMANENT": (BLUE, "D"),
    "REACHABLE": (GREEN, "o"),
    "DELAY": (GREEN, "v"),
    "PROBE": (GREEN, "v"),
    "STALE": (ORANGE, "s"),
    "FAILED": (VERMILLION, "X"),
    "INCOMPLETE": (VERMILLION, "X"),
}


def _last_number(address: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(address).split("."))


def neighbours(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.neighbours`: looks from left to right, a row an address, a mark an entry."""
    places = ", ".join(dict.fromkeys(df["place"]))
    title = title or f"Neighbour entries of {places}, look by look"
    looks = list(df["look"].cat.categories)
    told = {
        row.address: f"{row.address}  {row.owner}\n{row.network}"
        for row in df.astype({"owner": object}).fillna({"owner": "?"}).itertuples()
    }
    addresses = sorted(told, key=_last_number, reverse=True)
    axes = _axes(1.4 + 0.62 * max(len(addresses), 1), title)
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
    axes = _axes(1.2 + 0.42 * len(spots) * len(kinds), title)
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


def lookups(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups` of several trials: a panel a name, a dot an address in a reply."""
    import matplotlib.pyplot as plt

    given = df[df["answer"].notna()]
    names = list(dict.fromkeys(df["name"]))
    several = [(name, given[given["name"] == name]["answer"].nunique()) for name in names]
    told = [f"{name} gave {count} address{'' if count == 1 else 'es'}" for name, count in several]
    title = title or f"In {df['trial'].nunique()} questions {', '.join(told)}"
    owner = dict(zip(given["answer"], given["owner"].astype(object), strict=True))
    addresses = sorted(owner, key=_last_number, reverse=True)
    figure, panels = plt.subplots(
        1,
        len(names),
        figsize=(_WIDTH, 1.7 + 0.55 * max(len(addresses), 1)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, name in zip(panels[0], names, strict=True):
        mine = given[given["name"] == name]
        for row in mine.itertuples():
            y = addresses.index(row.answer)
            first = row.position == 1
            axes.plot(
                row.trial,
                y,
                marker="o",
                markersize=10,
                color=BLUE,
                markerfacecolor=BLUE if first else "white",
                linestyle="none",
            )
        axes.set_title(f"{name}", fontsize=11, fontfamily="monospace")
        axes.set_xlabel("question number")
        axes.set_xlim(0.3, float(df["trial"].max()) + 0.7)
        axes.set_ylim(-0.6, len(addresses) - 0.4)
        axes.grid(axis="y", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        if mine.empty:
            axes.text(0.5, 0.5, "no address", ha="center", transform=axes.transAxes, color=GREY)
    left: Axes = panels[0][0]
    left.set_yticks(range(len(addresses)), [f"{a}  {owner[a]}" for a in addresses])
    figure.suptitle(
        f"{title}\n● first in the reply   ○ further down in the same reply",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    return left


def names(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.lookups`: a row a name, a column a place, in each cell what came back."""
    from matplotlib.patches import Rectangle

    rows, places = list(dict.fromkeys(df["name"])), list(dict.fromkeys(df["place"]))
    known = df[df["answer"].notna()].groupby("place")["name"].nunique()
    counted = [f"{place} {int(known.get(place, 0))}" for place in places]
    title = title or f"Of {len(rows)} names, how many each place resolves: {', '.join(counted)}"
    axes = _axes(1.0 + 0.42 * len(rows), title)
    for (name, place), cell in df.groupby(["name", "place"], sort=False):
        x, y = places.index(place), rows.index(name)
        whose = cell["owner"].dropna().drop_duplicates().sort_values()
        good = bool(cell["answer"].notna().any())
        word = ", ".join(whose) or ("an address" if good else "no address")
        box: dict[str, Any] = {"facecolor": "#D9F0E8", "edgecolor": GREEN, "linewidth": 1}
        if not good:
            box = {"facecolor": "#FBE3D3", "edgecolor": VERMILLION, "linewidth": 1}
        axes.add_patch(Rectangle((x + 0.03, y + 0.08), 0.94, 0.84, **box))
        mark = "✓" if good else "✗"
        axes.text(x + 0.5, y + 0.5, f"{mark} {word}", ha="center", va="center", fontsize=10)
    axes.set_xlim(0, len(places))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(places))], [f"asked in {place}" for place in places])
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows, fontfamily="monospace")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=28)
    return axes
