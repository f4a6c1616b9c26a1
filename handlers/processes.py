"""Runs tasks that compute for long in processes of their own.

Owns: the children, from their start to their end. Knows neither the queue nor what tasks do.

A child runs one job at a time and is kept for the next one. One that ends, or has to be ended, costs the
attempt of the job that it ran, nothing else. No library is used: of those that end a job on time, the well-kept
ones are under the LGPL or know no asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from handlers.child import HEAD, directive_from, frame, job_fields
from handlers.endings import ForeignError, Unkept, hidden_paths, too_long
from pipeline.core.job import Job
from pipeline.errors import TaskError
from pipeline.registry import Task

START_SECONDS = 60.0
END_SECONDS = 5.0
LAST_BYTES_SECONDS = 0.1
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from handlers.child import main; main()"


class Processes:
    """The children of one worker. modules: what they import first, beside the module of the task.

    keep: how many idle ones are kept for the next job; as many as there are processors by default.
    """

    def __init__(self, *, modules: Sequence[str] = (), keep: int | None = None) -> None:
        self._modules = list(modules)
        self._keep = (os.cpu_count() or 2) if keep is None else keep
        self._idle: list[_Child] = []
        self._alive: set[_Child] = set()

    async def run(self, job: Job, task: Task, limit: float | None) -> Any:
        """The result of the job. Raises what its task raised, as a directive or ForeignError, and TaskError when
        it takes more than `limit` seconds or its process ends. Cancelled, it ends the process."""
        child = self._take() or await self._start(task)
        done = False
        try:
            if task.name not in child.loaded:
                await self._load(child, task)
            try:
                async with asyncio.timeout(limit) as scope:
                    reply = await child.ask({"run": job_fields(job), "hide": hidden_paths(task)}, task)
            except TimeoutError:
                if scope.expired() and limit is not None:
                    raise too_long(job, limit) from None
                raise
            done = True
        finally:
            if not done:
                child.kill()
        self._give_back(child)
        return _result(reply)

    async def close(self) -> None:
        """End the idle children, and wait for all; those that run a job must have been cancelled."""
        for child in self._idle:
            child.hang_up()
        self._idle.clear()
        for child in list(self._alive):
            try:
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.shield(child.gone)
            except TimeoutError:
                child.kill()
                await asyncio.shield(child.gone)
        await asyncio.sleep(0)  # lets the connections notice that they are closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _take(self) -> _Child | None:
        while self._idle:
            child = self._idle.pop()
            if child.usable():
                return child
            child.kill()
        return None

    def _give_back(self, child: _Child) -> None:
        if len(self._idle) < self._keep and child.usable():
            self._idle.append(child)
        else:
            child.hang_up()

    async def _start(self, task: Task) -> _Child:
        """A fresh interpreter: a fork would share the sockets and the locks of a worker with many threads."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        child = _Child(self._alive)
        try:
            with theirs:
                await loop.subprocess_exec(
                    lambda: child,
                    sys.executable, "-P", "-u", "-c", BOOT, json.dumps(sys.path), str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL, stdout=None, stderr=None,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C of the terminal is for the worker alone
                )  # fmt: skip
            ours.setblocking(False)
            await child.connect(ours)
        except BaseException as error:
            ours.close()
            child.kill()
            if isinstance(error, OSError):
                raise TaskError(
                    f"no process can be started for task {task.name}: {error}",
                    hint="Look at the limits of processes, descriptors and memory.",
                ) from None
            raise
        return child

    async def _load(self, child: _Child, task: Task) -> None:
        module = sys.modules.get(task.function.__module__)
        message = {
            "load": task.name,
            "module": task.function.__module__,
            "path": getattr(module, "__file__", None),
            "function": task.function.__qualname__,
            "modules": self._modules,
        }
        try:
            async with asyncio.timeout(START_SECONDS):
                reply = await child.ask(message, task)
        except TimeoutError:
            raise TaskError(
                f"the process of task {task.name} was not ready within {START_SECONDS:g} s",
                hint="Its module does too much while it is imported, or the machine is overloaded.",
            ) from None
        if "error" in reply:
            raise ForeignError(*reply["error"])
        child.loaded.add(task.name)


class _Child(asyncio.SubprocessProtocol):
    """One child. gone: done when its process has ended. alive: holds it until then."""

    def __init__(self, alive: set[_Child]) -> None:
        self.loaded: set[str] = set()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alive = alive
        self._process: asyncio.SubprocessTransport | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast(asyncio.SubprocessTransport, transport)  # uvloop's own is no subclass of it
        self._alive.add(self)

    def process_exited(self) -> None:
        """Also end what the task has started, which may hold our connection open."""
        self._kill_group()
        if self._process is not None:
            self._process.close()
        asyncio.get_running_loop().call_later(LAST_BYTES_SECONDS, self.hang_up)
        self._alive.discard(self)
        if not self.gone.done():
            self.gone.set_result(None)

    async def connect(self, ours: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    def usable(self) -> bool:
        return not self.gone.done() and self._reader is not None and not self._reader.at_eof()

    async def ask(self, message: Any, task: Task) -> dict[str, Any]:
        """Send a message and wait for the answer. Raises TaskError when the process ends before."""
        assert self._reader is not None and self._writer is not None  # noqa: S101, PT018 - for the types
        try:
            self._writer.write(frame(message))
            await self._writer.drain()
            head = await self._reader.readexactly(HEAD.size)
            reply: dict[str, Any] = msgspec.json.decode(await self._reader.readexactly(HEAD.unpack(head)[0]))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._died(task) from None
        return reply

    def hang_up(self) -> None:
        """The child ends by itself when it is idle."""
        if self._writer is not None:
            self._writer.transport.abort()

    def kill(self) -> None:
        if not self.gone.done():
            self._kill_group()
        self.hang_up()

    async def _died(self, task: Task) -> TaskError:
        how = "it closed its connection"
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self.gone)
            code = self._process.get_returncode() if self._process is not None else None
            if code is not None:
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        except TimeoutError:
            self.kill()
        return TaskError(
            f"the process of task {task.name} ended before the job did: {how}",
            hint="The kernel does that when memory runs out." if how.endswith("SIGKILL") else "",
        )

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.get_pid(), signal.SIGKILL)


def _result(reply: dict[str, Any]) -> Any:
    if "directive" in reply:
        raise directive_from(reply["directive"])
    if "error" in reply:
        raise ForeignError(*reply["error"])
    if reply["problem"]:
        return Unkept(reply["problem"])
    return None if reply["result"] is None else msgspec.json.decode(reply["result"])
