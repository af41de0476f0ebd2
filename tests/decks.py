"""The slides of the labs, made without a run: each cell that draws has a picture of nothing."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from pathlib import Path

from nbformat import NotebookNode

from labkit import paths
from labkit.authoring import claims, release
from labkit.classroom import slides

ABOUT = {"started": "2026-11-23T10:00:00+00:00", "docker": "26.1.5+dfsg1", "nodes": ["a", "b", "c"]}
_DRAWS = re.compile(r"\bplots\.\w+\(")


def png(width: int, height: int) -> str:
    """A black picture of a size, as base64."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes((width + 1) * height)),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def executed(lab: Path) -> NotebookNode:
    """A lab's source with a picture below each cell that draws one; they are wide and tall by turns."""
    notebook = release.read_source(lab)
    shapes = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and _DRAWS.search(cell.source):
            shapes += 1
            data = {"image/png": png(990, 440 if shapes % 2 else 990)}
            about = {"image/png": {"alt": f"drawn by <{cell.id}>"}}
            output = {"output_type": "display_data", "data": data, "metadata": about}
            cell.outputs = [NotebookNode(output)]
    return notebook


def deck(lab: Path, notebook: NotebookNode) -> str:
    """The slides of such a lab."""
    return slides.deck(lab.stem, notebook, claims.statements(paths.LABS), ABOUT)
