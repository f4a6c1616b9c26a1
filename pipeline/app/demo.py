"""The demo: everything at once, on a Postgres of its own, with traffic that none of us wrote.

Owns: the order in which the demo starts and ends, and its own files. Knows no part's inside.

It starts an embedded server, lets pgbench make its standard tables and traffic, watches three of them, enqueues a
job for a share of the inserts, reads balances through the cache in a process of its own, and once a minute
holds a lock for a few seconds, so that an alert on the p95 fires and resolves.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog

from pipeline.app.daemon import Daemon
from pipeline.app.demo_screen import Screen
from pipeline.app.demo_traffic import TASK, LockHolder, prepare, receipt
from pipeline.config import Config
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer, default_home, remove_abandoned
from pipeline.errors import PgreflexError
from pipeline.registry import Registry

DATABASE = "demo"
HOME_PREFIX = "demo-"  # of the homes that go when the demo ends
END_SECONDS = 5.0  # for a child process before it is killed
RATE = 40  # pgbench transactions a second: gentle, and enough for percentiles
SCALE = 5  # 500,000 accounts, 5 branches
CLIENTS = 24  # all of them wait for the lock: enough of the statements of its window for the p95

log = structlog.get_logger("pgreflex.demo")


class Demo:
    """data: the server's home, kept; None: one that goes when the demo ends. plain: lines, not a picture."""

    def __init__(self, config: Config, *, data: Path | None, plain: bool) -> None:
        self._config = config
        self._data = data
        self._screen = Screen(plain=plain or not sys.stdout.isatty())
        self._stopping = asyncio.Event()
        self._server: EmbeddedServer | None = None
        self._daemon: Daemon | None = None

    def shutdown(self) -> None:
        """Ask for the end; safe in a signal handler."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._daemon is not None:
            self._daemon.shutdown()

    async def run(self) -> None:
        """Start everything, show it, stop everything in reverse order, leave no process behind."""
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            server = await self._start_server(stack)
            if self._stopping.is_set():
                return
            dsn = server.dsn
            self._screen.say("installing pgreflex and pgbench's tables")
            await migrate(dsn)
            await self._run_to_end(server, "pgbench", "-i", "-q", "-s", str(SCALE), DATABASE)
            await prepare(dsn)
            registry = Registry()
            registry.add_task(receipt, name=TASK)
            config = self._config.model_copy(update={"dsn": dsn, "listen_dsn": dsn})
            self._daemon = daemon = Daemon(config, registry=registry)
            if self._stopping.is_set():
                return
            failed: BaseExceptionGroup[PgreflexError] | None = None
            try:
                async with asyncio.TaskGroup() as tasks:
                    running = tasks.create_task(daemon.run())
                    running.add_done_callback(lambda _task: self._stopping.set())
                    others = [
                        tasks.create_task(self._keep(server, "pgbench", *traffic())),
                        tasks.create_task(self._keep_reader(dsn)),
                        tasks.create_task(LockHolder(dsn).run()),
                        tasks.create_task(self._screen.show(daemon, began)),
                    ]
                    await self._stopping.wait()
                    for task in others:
                        task.cancel()
                    daemon.shutdown()
            except* PgreflexError as group:
                failed = group
            if failed is not None:
                raise failed.exceptions[0]

    async def _start_server(self, stack: AsyncExitStack) -> EmbeddedServer:
        home = self._data
        if home is None:
            base = default_home()
            try:
                base.mkdir(parents=True, exist_ok=True, mode=0o711)
                await asyncio.to_thread(remove_abandoned, base, HOME_PREFIX)
                home = Path(tempfile.mkdtemp(prefix=HOME_PREFIX, dir=base))
            except OSError as error:
                raise PgreflexError(
                    f"the demo cannot keep its data below {base}: {error.strerror}",
                    hint="Name another place: pgreflex demo --data DIR",
                ) from error
            stack.callback(shutil.rmtree, home, ignore_errors=True)
        self._server = server = EmbeddedServer(home, database=DATABASE)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        self._screen.say("starting Postgres")
        starting = asyncio.create_task(asyncio.to_thread(server.start, on_wait=self._screen.say))
        starting.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, whoever waits for it
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            await asyncio.to_thread(server.stop)
            with suppress(PgreflexError):
                await starting
            return server
        await starting
        return server

    async def _run_to_end(self, server: EmbeddedServer, name: str, *args: str) -> None:
        argv, env = server.command(name, *args)
        process = await asyncio.create_subprocess_exec(
            *argv, env=env, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _out, complaint = await process.communicate()
        if process.returncode:
            raise PgreflexError(f"{name} failed: {complaint.decode(errors='replace').strip()[-300:]}")

    async def _keep(self, server: EmbeddedServer, name: str, *args: str) -> None:
        argv, env = server.command(name, *args)
        await self._keep_process(name, argv, env)

    async def _keep_reader(self, dsn: str) -> None:
        await self._keep_process("reader", [sys.executable, "-m", "pipeline.app.demo_reader", dsn], None)

    async def _keep_process(self, name: str, argv: list[str], env: dict[str, str] | None) -> None:
        """Run a child in a session of its own, so that Ctrl-C reaches only us, and again if it ends."""
        while True:
            process = await asyncio.create_subprocess_exec(
                *argv, env=env, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                _out, complaint = await process.communicate()
                log.warning(
                    "a part of the demo ended; starting it again",
                    part=name,
                    said=complaint.decode(errors="replace").strip()[-300:],
                )
            finally:
                await end(process)
            await asyncio.sleep(1)


def traffic() -> list[str]:
    """pgbench's own TPC-B script at a gentle rate; what is late is left out, not caught up with."""
    return [
        "-n", "-c", str(CLIENTS), "-j", "1", "-M", "prepared", f"--rate={RATE}",
        "--latency-limit=200", "-T", "31536000", DATABASE,
    ]  # fmt: skip


async def end(process: asyncio.subprocess.Process) -> None:
    """Ask a child to end; kill it when it does not."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(how)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
