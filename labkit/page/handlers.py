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
import shlex
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from labkit import paths, swarm
from labkit.errors import LabkitError
from labkit.page import actions, handing, labs, services
from labkit.page.actions import Shell
from labkit.page.shells import Shells
from labkit.page.view import View

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_LONGEST_WAIT_S = 20.0  # a proxy between the page and this server may cut off what is silent for longer


def add(server: ServerApp) -> None:
    """Add the kit's addresses to a server, for the lab or the recordings of its environment."""
    view = View(swarm.default_lab(), os.environ.get("LABKIT_REPLAY", ""))
    shared = {"view": view, "folder": Path(server.root_dir), "shells": Shells(view.lab)}
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

    def initialize(self, view: View, folder: Path, shells: Shells) -> None:
        self.view, self.folder, self.shells = view, folder, shells

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
    """Opens a shell in a place of the swarm; the answer names the terminal, the command and the shell.

    Asked with the key of such a ``shell``, it answers with what was typed there, as cells of a
    notebook; asked for nothing, with the shells that are still open.
    """

    @authenticated
    async def get(self) -> None:
        await self.answer(self._still_open())

    @authenticated
    async def post(self) -> None:
        asked = self.asked()
        await self.answer(self._typed(asked) if "shell" in asked else self._opened(asked))

    async def _still_open(self) -> list[dict[str, str]]:
        # Nobody manages terminals where Jupyter has none, and no shell is open then.
        return self.shells.still_open(self.settings.get("terminal_manager"))

    async def _opened(self, asked: dict[str, Any]) -> dict[str, str]:
        shell = await asyncio.to_thread(self._shell, asked)
        return self.shells.open(shell, self.settings["terminal_manager"])

    def _shell(self, asked: dict[str, Any]) -> Shell:
        with contextlib.closing(swarm.get(self.view.lab)) as found:
            return actions.shell(found, asked)

    async def _typed(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"cells": await asyncio.to_thread(self.shells.typed, str(asked["shell"]))}


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
