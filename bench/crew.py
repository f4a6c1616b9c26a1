"""Processes that a check starts, and that its faults act on.

Owns: their start, forked from a server that has imported everything, so that a new one costs milliseconds; and
the record of who lived, was stopped and died when. Knows no fault, no check, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import structlog

DOWN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""What asyncpg raises when a server or a connection is gone."""

Main = Callable[..., None]


class Member:
    """One process. since, until: its life on this machine's wall clock; stops: when it was stopped and woken."""

    def __init__(self, name: str, process: BaseProcess) -> None:
        self.name = name
        self.process = process
        self.since = time.time()
        self.until: float | None = None
        self.stops: list[tuple[float, float | None]] = []
        self.spared_until = 0.0

    @property
    def stopped(self) -> bool:
        return bool(self.stops) and self.stops[-1][1] is None

    def lived(self, first: float, last: float) -> bool:
        """Whether it was there and awake throughout."""
        if self.since > first or (self.until is not None and self.until < last):
            return False
        return all(woken is not None and (woken < first or stop > last) for stop, woken in self.stops)


class Crew:
    """`size` processes of one kind that always run; every one that dies is replaced at once.

    main: called in each with its name and `args`. preload: modules that are imported once for all of them.
    """

    def __init__(self, size: int, role: str, main: Main, *args: Any, preload: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._role = role
        self._main = main
        self._args = args
        self._size = size
        self._hiring = True
        self.members: list[Member] = []
        self.past: list[Member] = []

    async def keep(self) -> None:
        """Replace the dead until cancelled."""
        while True:
            self.tend()
            await asyncio.sleep(0.02)

    def tend(self) -> None:
        """Bury and replace."""
        for member in [one for one in self.members if not one.process.is_alive()]:
            member.until = time.time()
            self.members.remove(member)
            self.past.append(member)
        while self._hiring and len(self.members) < self._size:
            name = f"{self._role} {len(self.members) + len(self.past)}"
            process = self._context.Process(target=self._main, args=(name, *self._args), daemon=True)
            process.start()
            self.members.append(Member(name, process))

    def pick(self, rng: Random, among: Collection[str] = ()) -> Member | None:
        """One that is awake and not spared, by chance; of these names, if any are given."""
        now = time.time()
        awake = [one for one in self.members if not one.stopped and one.spared_until < now]
        if among:
            awake = [one for one in awake if one.name in among]
        return rng.choice(awake) if awake else None

    def kill(self, member: Member) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_pid(member), signal.SIGKILL)
        member.process.join(5)

    def freeze(self, member: Member) -> None:
        os.kill(_pid(member), signal.SIGSTOP)
        member.stops.append((time.time(), None))

    def wake(self, member: Member, spare: float = 0.0) -> None:
        """Let it go on; nobody kills it for `spare` seconds, so that it can do what it does too late."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(_pid(member), signal.SIGCONT)
        member.stops[-1] = (member.stops[-1][0], time.time())
        member.spared_until = time.time() + spare

    async def leave(self, within: float) -> int:
        """SIGTERM to all; returns how many had to be killed after `within` seconds."""
        self._hiring = False
        for member in self.members:
            if member.stopped:
                self.wake(member)
            with contextlib.suppress(ProcessLookupError):
                os.kill(_pid(member), signal.SIGTERM)
        deadline = time.monotonic() + within
        while any(one.process.is_alive() for one in self.members) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        late = [one for one in self.members if one.process.is_alive()]
        for member in late:
            self.kill(member)
        self.tend()
        return len(late)


def _pid(member: Member) -> int:
    assert member.process.pid is not None
    return member.process.pid


def die_with_parent() -> None:
    """End when whoever started this process has, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def log_to(path: str, name: str) -> None:
    """Everything that is logged goes to one file, a line of JSON each."""
    file = Path(path).open("a", buffering=1)  # noqa: SIM115 - for the life of the process

    def write(_logger: object, level: str, event: dict[str, Any]) -> str:
        times = {"at": time.time(), "mono": time.monotonic_ns()}
        file.write(json.dumps({"worker": name, **times, "level": level, **event}, default=str) + "\n")
        raise structlog.DropEvent

    structlog.configure(processors=[write])
