"""The other end of `handlers.processes`: a process that runs one job at a time for a worker.

Owns: the frames of their connection, and the child's main loop. Knows neither the queue nor the database.

A frame is four bytes of length, highest first, and JSON. The connection has a descriptor of its own, so that a
task may print. It is read in a thread: when the worker is gone the process ends, in the middle of a job too.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import queue
import runpy
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import msgspec

from handlers.endings import encoded, error_text, hiding
from pipeline import log
from pipeline.core.directives import Cancel, Directive, Discard, Retry, Snooze
from pipeline.core.job import Job
from pipeline.errors import TaskError
from pipeline.registry import Registry, Task, filling

HEAD = struct.Struct(">I")
MAIN = "__pgreflex_main__"


def frame(message: Any) -> bytes:
    """A message as it is sent."""
    body = msgspec.json.encode(message)
    return HEAD.pack(len(body)) + body


def job_fields(job: Job) -> dict[str, Any]:
    """A job as it is sent; what its worker does for it stays behind."""
    return {name: getattr(job, name) for name in Job.__struct_fields__ if name != "host"}


def directive_fields(directive: Directive) -> list[Any]:
    """A directive as it is sent."""
    time = getattr(directive, "after", getattr(directive, "seconds", None))
    kind = next(k for k in (Retry, Snooze, Cancel, Discard, Directive) if isinstance(directive, k))
    return [kind.__name__, time, directive.reason]


def directive_from(fields: list[Any]) -> Directive:
    """What `directive_fields` made."""
    kind, time, reason = fields
    if kind == "Retry":
        return Retry(time, reason)
    if kind == "Snooze":
        return Snooze(time, reason)
    return Cancel(reason) if kind == "Cancel" else Discard(reason)


class Child:
    """Serves the worker at the other end of a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._registry = Registry()
        self._tasks: dict[str, Task] = {}
        self._busy = False

    def serve(self) -> None:
        """Answer until the worker hangs up."""
        threading.Thread(target=self._read, name="pgreflex-worker", daemon=True).start()
        with filling(self._registry):
            while (message := self._inbox.get()) is not None:
                reply = self._load(message) if "load" in message else self._run(message["run"], message["hide"])
                self._busy = False
                with contextlib.suppress(OSError):  # the worker is gone; the thread has noticed too
                    self._connection.sendall(frame(reply))

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._connection.makefile("rb") as stream:
            while len(head := stream.read(HEAD.size)) == HEAD.size:
                body = stream.read(HEAD.unpack(head)[0])
                self._busy = True
                self._inbox.put(msgspec.json.decode(body))
        if self._busy:
            os.killpg(0, signal.SIGKILL)  # with whatever the task has started
        self._inbox.put(None)

    def _load(self, message: Mapping[str, Any]) -> dict[str, Any]:
        name, module, path = message["load"], message["module"], message["path"]
        try:
            for one in message["modules"]:
                import_module(one)
            if module == "__main__":
                found: Any = runpy.run_path(path, run_name=MAIN)[message["function"].partition(".")[0]]
                rest = message["function"].split(".")[1:]
            else:
                found, rest = import_module(module), message["function"].split(".")
            self._tasks[name] = self._registry.get(name) or self._resolve(name, found, rest)
        except BaseException as error:
            return {"error": [type(error).__name__, error_text(error)]}
        return {"ready": name}

    def _resolve(self, name: str, found: Any, rest: list[str]) -> Task:
        for part in rest:
            found = getattr(found, part, None)
        if not callable(found):
            raise TaskError(
                f"task {name} is not found in its process",
                hint="A task with process=True is a function at the top of its module.",
            )
        return Registry().add_task(found, name=name)

    def _run(self, fields: dict[str, Any], hide: list[str]) -> dict[str, Any]:
        job = Job(**fields)
        try:
            task = self._tasks[job.task]
            result = task.function(job, **task.bind(job.args))
            if task.is_async:
                result = asyncio.run(result)
            if isinstance(result, Directive):
                return {"directive": directive_fields(result)}
            text, problem = encoded(result)
        except Directive as directive:
            return {"directive": directive_fields(directive)}
        except BaseException as error:
            return {"error": [type(error).__name__, error_text(error, hiding(job, hide))]}
        return {"result": text, "problem": problem}


def main() -> None:
    """Called by the worker with: sys.path (set already), the descriptor of the connection."""
    faulthandler.enable()
    for one in (signal.SIGINT, signal.SIGTERM):
        # The worker decides when it ends, also when a service manager signals all processes. Not SIG_IGN, which
        # the programs that a task starts would inherit.
        signal.signal(one, lambda *_: None)
    log.setup()
    descriptor = int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection:
        Child(connection).serve()
