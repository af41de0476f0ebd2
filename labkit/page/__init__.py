"""The page that `labkit lab` opens: the kit's part of JupyterLab, in the server and in the browser.

The server's part is an extension of Jupyter's server (`handlers`): it answers with the labs of a folder
(`labs`) and the state of the swarm (`view`). The browser's part is in `labextensions/labkit`: plain
modules that a browser runs as they are, so nothing is built, here or on a learner's machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

LABEXTENSIONS = Path(__file__).parent / "labextensions"
"""The directory that JupyterLab looks for the browser's part in."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Name the module of the extension, as Jupyter's server wants it."""
    return [{"module": "labkit.page"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Add the kit's addresses to Jupyter's server."""
    from labkit.page import handlers

    handlers.add(server)
