"""The proxy of a machine: when it lets the machine rest, and that nothing said to it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from labkit.engines.vm.proxy import DOORS, Idle, Proxy, State
from labkit.engines.vm.standby import idle
from labkit.errors import EngineError, UsageError

SOON = 20.0  # seconds; a deadline, not a measure
NEVER = Idle(None, None)


class Machine:
    """Stands in for a machine: it answers a line with the line, and notes where it was brought to."""

    def __init__(self, pid: int | None = None) -> None:
        self.at: State = "running"
        self.been: list[str] = []
        self.refuses: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.may_go_on: Callable[[], object] = lambda: None
        self._pid = pid
        self._ports: dict[str, int] = {}

    async def serve(self) -> None:
        """Listen at another port than before."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self._ports["at"] = server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await self.answers.wait()
            writer.write(line.upper())
        writer.write(b"END")
        writer.close()

    def state(self) -> State:
        return self.at

    def pid(self) -> int | None:
        return self._pid

    def port(self, door: str) -> int:
        return self._ports["at"]

    def pause(self) -> bool:
        return self._brought("paused", "pause")

    def hibernate(self, unwanted: Callable[[], bool]) -> bool:
        self.may_go_on()
        if not unwanted():
            self.been.append("wanted")
            return False
        return self._brought("hibernated", "hibernate")

    def wake(self) -> None:
        if "wake" in self.refuses:
            self.been.append("no wake")
            raise EngineError("it does not come back")
        self._brought("running", "wake")

    def _brought(self, state: State, call: str) -> bool:
        if call in self.refuses:
            self.been.append(f"no {call}")
            return False
        self.at = state
        self.been.append(state)
        return True


Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reached:
    """A machine and the ports of its proxy."""

    def __init__(self, machine: Machine, ports: dict[str, int], task: asyncio.Task[None]) -> None:
        self.machine, self.ports, self.task = machine, ports, task

    async def talk(self, door: str = "api") -> Talk:
        return await asyncio.open_connection("127.0.0.1", self.ports[door])

    async def until(self, *been: str) -> None:
        async with asyncio.timeout(SOON):
            while self.machine.been[: len(been)] != list(been):
                await asyncio.sleep(0.01)


async def ask(talk: Talk, words: bytes) -> bytes:
    talk[1].write(words + b"\n")
    async with asyncio.timeout(SOON):
        return (await talk[0].readline()).strip()


@asynccontextmanager
async def proxied(rest: Idle, machine: Machine | None = None, **more: Any) -> AsyncIterator[Reached]:
    machine = machine or Machine()
    await machine.serve()
    doors = {door: socket.create_server(("127.0.0.1", 0)) for door in DOORS}
    ports = {door: listening.getsockname()[1] for door, listening in doors.items()}
    task = asyncio.create_task(Proxy(machine, rest, **more).serve(doors))
    try:
        yield Reached(machine, ports, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for listening in doors.values():
            listening.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_who_asks_wakes_a_machine_that_is_paused() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, None)) as reached:
            talk = await reached.talk()
            assert await ask(talk, b"first") == b"FIRST"
            await reached.until("paused")
            assert await ask(talk, b"second") == b"SECOND"  # on the same connection
            assert reached.machine.been[:2] == ["paused", "running"]
            await reached.until("paused", "running", "paused")
            assert await ask(await reached.talk(), b"third") == b"THIRD"
            talk[1].close()

    run(test())


def test_it_does_not_rest_while_an_answer_is_to_come() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, None)) as reached:
            reached.machine.answers.clear()
            slow = await reached.talk("relay")
            slow[1].write(b"slow\n")
            await asyncio.sleep(0.3)
            assert reached.machine.been == []
            reached.machine.answers.set()
            assert await slow[0].readline() == b"SLOW\n"
            await reached.until("paused")

    run(test())


def test_it_does_not_rest_while_another_client_is_connected() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, None)) as reached:
            people = await reached.talk("api")
            assert await ask(people, b"docker run") == b"DOCKER RUN"
            await asyncio.sleep(0.3)
            assert reached.machine.been == []
            people[1].close()
            await reached.until("paused")

    run(test())


def test_hibernated_it_comes_back_at_another_port() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, 0.05)) as reached:
            before = await reached.talk()
            assert await ask(before, b"before") == b"BEFORE"
            await reached.until("paused", "hibernated")
            assert await before[0].read() == b""  # its other end is gone, and that is told
            await reached.machine.serve()
            assert await ask(await reached.talk(), b"after") == b"AFTER"
            assert reached.machine.been[:3] == ["paused", "hibernated", "running"]

    run(test())


def test_wanted_while_it_is_written_it_goes_on() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, 0.05)) as reached:
            loop = asyncio.get_running_loop()
            talk = await reached.talk()
            assert await ask(talk, b"before") == b"BEFORE"

            def asked_meanwhile() -> None:
                reached.machine.may_go_on = lambda: None
                asyncio.run_coroutine_threadsafe(say(), loop).result()

            async def say() -> None:
                talk[1].write(b"meanwhile\n")
                await asyncio.sleep(0.1)

            reached.machine.may_go_on = asked_meanwhile
            async with asyncio.timeout(SOON):
                assert await talk[0].readline() == b"MEANWHILE\n"
            assert reached.machine.been[:3] == ["paused", "wanted", "running"]

    run(test())


def test_what_is_refused_is_tried_again() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, 0.05)) as reached:
            reached.machine.refuses = {"pause"}  # somebody changes the lab
            await reached.until("no pause", "no pause")
            assert await ask(await reached.talk(), b"it runs") == b"IT RUNS"
            reached.machine.been.clear()
            reached.machine.refuses = {"hibernate"}  # the disk is full
            async with asyncio.timeout(SOON):
                while "no hibernate" not in reached.machine.been:
                    await asyncio.sleep(0.01)
            assert await ask(await reached.talk(), b"it stood") == b"IT STOOD"

    run(test())


def test_who_cannot_be_served_is_told_and_the_next_one_tries_again() -> None:
    async def test() -> None:
        async with proxied(Idle(0.05, None)) as reached:
            await reached.until("paused")
            reached.machine.refuses = {"wake"}
            assert await ask(await reached.talk(), b"in vain") == b""
            reached.machine.refuses = set()
            assert await ask(await reached.talk(), b"again") == b"AGAIN"

    run(test())


def test_somebody_elses_connection_neither_wakes_it_nor_gets_in() -> None:
    async def test() -> None:
        refused: list[bool] = []
        admits = lambda client, door: not refused  # noqa: E731
        async with proxied(Idle(0.05, None), admits=admits) as reached:
            await reached.until("paused")
            refused.append(True)
            reader, writer = await reached.talk("api")
            writer.write(b"let me in\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert reached.machine.been == ["paused"]
            refused.clear()
            assert await ask(await reached.talk(), b"it is me") == b"IT IS ME"

    run(test())


def test_it_ends_with_the_machine() -> None:
    async def test() -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            async with proxied(NEVER, Machine(process.pid)) as reached:
                talk = await reached.talk()
                assert await ask(talk, b"here") == b"HERE"
                process.kill()
                async with asyncio.timeout(SOON):
                    await reached.task
                assert await talk[0].read() == b""
                with pytest.raises(ConnectionRefusedError):
                    await reached.talk()

    run(test())


def test_the_end_of_what_is_asked_is_passed_on() -> None:
    async def test() -> None:
        async with proxied(NEVER) as reached:
            reader, writer = await reached.talk()
            writer.write(b"all\n")
            writer.write_eof()
            assert await reader.read() == b"ALL\nEND"

    run(test())


def test_when_it_rests_is_read_from_the_environment() -> None:
    assert idle({}) == Idle(300, 3600)
    assert idle({"LABKIT_PAUSE_AFTER": "20", "LABKIT_HIBERNATE_AFTER": "0"}) == Idle(20, None)
    for wrong in ("soon", "-1", "inf", "nan"):
        with pytest.raises(UsageError, match=r"LABKIT_PAUSE_AFTER=.* is no number of seconds"):
            idle({"LABKIT_PAUSE_AFTER": wrong})
