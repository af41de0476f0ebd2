"""A look at a swarm as a picture: of words for a terminal, of boxes for a page."""

from __future__ import annotations

from html import escape as _safe
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.swarm.look import Look, ServiceRow, TaskRow

# The colours of Okabe and Ito: they differ for the colour-blind, too, and in greyscale.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_STYLE = """
.labkit-look { font-size: 13px; line-height: 1.5; }
.labkit-look > div { display: flex; flex-wrap: wrap; gap: 0.6em; }
.labkit-look section { flex: 1 1 14em; padding: 0.4em 0.7em; border: 1px solid #888; }
.labkit-look section.labkit-away { border-style: dashed; }
.labkit-look ul { margin: 0; padding: 0; list-style: none; }
.labkit-look li { margin-top: 0.3em; padding-left: 0.5em; border-left: 5px solid #888; }
.labkit-look li.labkit-ended { border-left-style: dotted; }
.labkit-look p { margin: 0.4em 0 0; }
"""


def text(look: Look) -> str:
    """Return the picture as lines for a terminal."""
    lines = []
    for node in look.nodes:
        lines.append(f"{node.sign} {node.name} {node.told}")
        lines += [f"    {task.sign} {_task(task)}" for task in _on(look, node.name)]
    if waiting := _on(look, ""):
        lines.append("Tasks that have no node yet")
        lines += [f"    {task.sign} {_task(task)}" for task in waiting]
    lines += [f"Service {row.name}: {_service(row)}" for row in look.services]
    lines += [f"Overlay {row.name}: {row.told}" for row in look.networks]
    return "\n".join(lines)


def html_of(look: Look) -> str:
    """Return the picture as HTML that needs nothing else; every word is escaped."""
    colours = {row.name: _COLOURS[at % len(_COLOURS)] for at, row in enumerate(look.services)}

    def box(head: str, tasks: list[TaskRow], name: str, away: bool) -> str:
        rows = "".join(_item(task, colours[task.service]) for task in tasks)
        kind = ' class="labkit-away"' if away else ""
        return f'<section{kind} aria-label="{_safe(name)}">{head}<ul>{rows}</ul></section>'

    boxes = [
        box(
            f'<span aria-hidden="true">{node.sign}</span> <b>{_safe(node.name)}</b> {_safe(node.told)}',
            _on(look, node.name),
            node.name,
            node.state != "ready",
        )
        for node in look.nodes
    ]
    if waiting := _on(look, ""):
        boxes.append(box("Tasks that have no node yet", waiting, "no node yet", True))
    services = "".join(
        f'<li style="border-left-color: {colours[row.name]}"><b>{_safe(row.name)}</b> '
        f"{_safe(_service(row))}</li>"
        for row in look.services
    )
    overlays = "; ".join(f"<b>{_safe(row.name)}</b> {_safe(row.told)}" for row in look.networks)
    return (
        f'<style>{_STYLE}</style><div class="labkit-look"><div>{"".join(boxes)}</div>'
        f"<p>Services</p><ul>{services or '<li>None yet.</li>'}</ul>"
        f"<p>Overlay networks: {overlays}</p></div>"
    )


def _on(look: Look, node: str) -> list[TaskRow]:
    """Return the tasks on a node; without a name, those that still wait for one."""
    return [task for task in look.tasks if task.node == node and (node or not task.ended)]


def _item(task: TaskRow, colour: str) -> str:
    kind = ' class="labkit-ended"' if task.ended else ""
    return (
        f'<li{kind} style="border-left-color: {colour}">'
        f'<span aria-hidden="true">{task.sign}</span> {_safe(_task(task))}</li>'
    )


def _task(row: TaskRow) -> str:
    addresses = [f"{address} on {network}" for network, address in row.addresses.items()]
    known = ", ".join([*addresses, row.error] if row.error else addresses)
    return f"{row.name} {row.told}{': ' if known else ''}{known}"


def _service(row: ServiceRow) -> str:
    words = [row.told]
    if row.ports:
        words.append(f"published: {', '.join(row.ports)}")
    words += [f"virtual IP {address} on {network}" for network, address in row.addresses.items()]
    return "; ".join(words)
