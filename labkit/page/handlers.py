"""The kit's addresses on Jupyter's server: labs, questions, swarm, service, do, terminal and class,
under /labkit.

All want the token of Jupyter's server, as its own addresses do, and answer in JSON. What a person can
mend is an answer with status 400, `message` and `hint`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from labkit import paths, swarm
from labkit.errors import LabkitError, UnknownNameError, UsageError
from labkit.page import actions, handing, labs, services
from labkit.page.actions import Shell
from labkit.page.view import View

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_LONGEST_WAIT_S = 20.0  # a proxy between the page and this server may cut off what is silent for longer


def add(server: ServerApp) -> None:
    """Add the kit's addresses to a server, for the lab or the recordings of its environment."""
    view = View(swarm.default_lab(), os.environ.get("LABKIT_REPLAY", ""))
    shared = {"view": view, "folder": Path(server.root_dir)}
    kinds = {
        "labs": Labs,
        "questions": Questions,
        "swarm": SwarmState,
        "service": Service,
        "do": Do,
        "terminal": Terminal,
        "class": Class,
    }
    rows = [
        (url_path_join(server.base_url, "labkit", name), kind, shared) for name, kind in kinds.items()
    ]
    server.web_app.add_handlers(".*$", rows)  # type: ignore[no-untyped-call]


class _Handler(APIHandler):
    """Answers in JSON, and makes the kit's errors answers."""

    def initialize(self, view: View, folder: Path) -> None:
        self.view, self.folder = view, folder

    async def answer(self, making: Awaitable[object]) -> None:
        """Answer with what is being made, or with why it could not be."""
        try:
            found = await making
        except LabkitError as problem:
            self.set_status(400)
            found = {"message": str(problem.args[0]), "hint": problem.hint}
        self.finish(json.dumps(found))

    def asked(self) -> dict[str, Any]:
        """Return what the page asks for; empty where that is no object of JSON."""
        found = self.get_json_body()
        return found if isinstance(found, dict) else {}


class Labs(_Handler):
    """The labs of the learner's folder: a row each, as `labs.LabRow` tells."""

    @authenticated
    async def get(self) -> None:
        await self.answer(asyncio.to_thread(self._rows))

    def _rows(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(row) for row in labs.of_folder(self.folder, paths.RELEASE)]


class Questions(_Handler):
    """The questions of the lab ``?lab=NAME.ipynb``: a row each, as `labs.QuestionRow` tells."""

    @authenticated
    async def get(self) -> None:
        name = self.get_query_argument("lab", "")
        await self.answer(asyncio.to_thread(self._rows, name))

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [dataclasses.asdict(row) for row in labs.questions(name, paths.RELEASE)]


class SwarmState(_Handler):
    """The state of the swarm: at once, or with ``?after=VERSION`` as soon as there is another one."""

    @authenticated
    async def get(self) -> None:
        after = self.get_query_argument("after", "")
        await self.answer(self._newer(int(after) if after.isdecimal() else -1))

    async def _newer(self, than: int) -> dict[str, Any]:
        version, state = await self.view.newer(than, _LONGEST_WAIT_S)
        more = {"version": version, "title": state.title, "sign": state.sign}
        return dataclasses.asdict(state) | more


class Service(_Handler):
    """Answers a question about a service of the swarm, as `services.Answer` tells."""

    @authenticated
    async def post(self) -> None:
        await self.answer(asyncio.to_thread(self._answer, self.asked()))

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        with contextlib.closing(swarm.get(self.view.lab)) as found:
            return dataclasses.asdict(services.of(found, asked))


class Do(_Handler):
    """Does one thing to the swarm, and tells the command that does the same."""

    @authenticated
    async def post(self) -> None:
        await self.answer(self._done(self.asked()))

    async def _done(self, asked: dict[str, Any]) -> dict[str, str]:
        if work := actions.work(self.view.lab, asked):
            command, does = work
            self.view.begin(command, does)
            return {"where": "", "command": command, "cell": f"!{command}"}
        return await asyncio.to_thread(self._act, asked)

    def _act(self, asked: dict[str, Any]) -> dict[str, str]:
        with contextlib.closing(swarm.get(self.view.lab)) as found:
            action = actions.of(found, asked)
            action.place.run(action.argv).check()
        return {
            "where": action.place.label,
            "command": shlex.join(action.argv),
            "cell": action.cell,
        }


class Terminal(_Handler):
    """Opens a shell in a place of the swarm; the answer names the terminal, and the command.

    With the name of such a ``terminal``, it answers with what was typed there, as cells of a notebook.
    """

    @authenticated
    async def post(self) -> None:
        asked = self.asked()
        await self.answer(self._typed(asked) if "terminal" in asked else self._opened(asked))

    @property
    def _shells(self) -> dict[str, tuple[Shell, str]]:
        """The shells that were opened, and the file that keeps what is typed, by their terminals."""
        found: dict[str, tuple[Shell, str]] = self.settings.setdefault("labkit_shells", {})
        return found

    async def _opened(self, asked: dict[str, Any]) -> dict[str, Any]:
        shell = await asyncio.to_thread(self._shell, asked)
        words, lab = list(shell.argv), ["--lab", self.view.lab, "-it"]
        kept = f"/run/labkit-typed-{secrets.token_hex(8)}"
        if shell.keeps:
            bash = words.index("bash")
            words[bash:bash] = ["env", f"HISTFILE={kept}", "PROMPT_COMMAND=history -a"]
        argv = [sys.executable, "-m", "labkit", "exec", *lab, *words]
        name = self.settings["terminal_manager"].create(shell_command=argv)["name"]
        if shell.keeps:
            self._shells[name] = (shell, kept)
        command = shlex.join(["labkit", "exec", *lab, *shell.argv])
        return {"name": name, "place": shell.place.label, "command": command, "keeps": shell.keeps}

    def _shell(self, asked: dict[str, Any]) -> Shell:
        with contextlib.closing(swarm.get(self.view.lab)) as found:
            return actions.shell(found, asked)

    async def _typed(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = str(asked["terminal"])
        if name not in self._shells:
            raise UnknownNameError("terminal of the swarm", name, list(self._shells))
        shell, kept = self._shells[name]
        lines = await asyncio.to_thread(self._lines, shell.place.node.name, kept)
        if not (cells := actions.cells(shell, lines)):
            raise UsageError(
                f"no command was typed in {shell.place.label} yet",
                hint="type one in the terminal first",
            )
        return {"cells": cells}

    def _lines(self, node: str, kept: str) -> list[str]:
        with contextlib.closing(swarm.get(self.view.lab)) as found:
            return found.node(node).run(["cat", kept]).lines  # nothing where nothing was typed


class Class(_Handler):
    """The class that this is the server of: what can be handed in; and hands in, or fetches."""

    @authenticated
    async def get(self) -> None:
        await self.answer(asyncio.to_thread(self._look))

    @authenticated
    async def post(self) -> None:
        await self.answer(asyncio.to_thread(self._do, self.asked()))

    def _look(self) -> dict[str, Any]:
        return dataclasses.asdict(handing.look())

    def _do(self, asked: dict[str, Any]) -> dict[str, Any]:
        return dataclasses.asdict(handing.do(self.folder, asked))
