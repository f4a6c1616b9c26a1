"""An alert from a held lock to a webhook and back, on pgbench's tables. `make try-alerts`.

Owns: the steps, and what is shown of each. It starts a server, a daemon and a webhook of its own, and
leaves nothing behind; it takes a minute and ends with status 1 at the first step that does not come.

Windows are of 5 s: two bad ones make the rule fire, one good one resolves it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import uvloop

from bench.alerts_kit import ROOT, daemon, webhook
from pipeline.embedded import EmbeddedServer

RULE = "slow branches"
SERIES = "pgbench_branches.update"
LOCK_SECONDS = 1.2  # shorter than a window, so that each window has timings, and slow ones
PATIENCE = 45.0


class Tour:
    """What is said, and since when."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, what: str, detail: str = "") -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {what:<13} {detail}".rstrip(), flush=True)


async def tour(server: EmbeddedServer, told: Tour) -> None:
    """All steps. Raises TimeoutError when one does not come."""
    dsn = server.dsn
    await _run(*server.command("pgbench", "-i", "-q", "-s", "1", server.database))
    await _pgreflex(dsn, "migrate")
    async with webhook() as ear, daemon(dsn, ear), _connected(dsn) as connection:
        await _pgreflex(dsn, "watch", "public.pgbench_branches", "--timing")
        await _pgreflex(
            dsn, "alerts", "rules", "add", RULE, "--metric", "latency.p95", "--series", SERIES, "--threshold",
            "500", "--over", "5 s", "--need", "2", "--keep-firing", "1", "--severity", "critical",
        )  # fmt: skip
        async with _traffic(server):
            told.say("pgbench runs", f"the rule: p95 of {SERIES} > 500 ms in two windows of 5 s")
            async with _locked(dsn):
                told.say("lock held", f"{LOCK_SECONDS} s at a time")
                await _until(connection, "pending")
                told.say("pending")
                await _until(connection, "firing")
                told.say("firing", await connection.fetchval("select message from pipeline.alerts()"))
                await ear.hear('"status":"firing"', PATIENCE)
                told.say("delivered", "the webhook was told that it fires")
                await _pgreflex(dsn, "alerts", "ack", RULE, "--note", "looking", "--by", "ann")
                told.say("acknowledged", "by ann")
                print(await _pgreflex(dsn, "alerts", "show", RULE), flush=True)
            told.say("lock released")
            await _until(connection, "resolved")
            told.say("resolved")
            await ear.hear('"status":"resolved"', PATIENCE)
            told.say("delivered", "the webhook was told that it is over")
    told.say("done", f"{len(ear.got)} notifications")


async def _until(connection: asyncpg.Connection, state: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await connection.fetchval(
            "select exists (select from pipeline.alert_history where rule = $1 and after = $2)", RULE, state
        ):
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _traffic(server: EmbeddedServer) -> AsyncIterator[None]:
    """pgbench, slow enough that most of its transactions meet the lock."""
    argv, env = server.command("pgbench", "-n", "-c", "4", "-R", "5", "-T", "600", server.database)
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _locked(dsn: str) -> AsyncIterator[None]:
    """The branches are locked again and again, until the block ends."""

    async def hold() -> None:
        async with _connected(dsn) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("select from pgbench_branches for update")
                    await asyncio.sleep(LOCK_SECONDS)
                await asyncio.sleep(0.2)

    task = asyncio.create_task(hold())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pgreflex(dsn: str, *arguments: str) -> str:
    return await _run([sys.executable, "run.py", *arguments, "--dsn", dsn])


async def _run(argv: Sequence[str], env: dict[str, str] | None = None) -> str:
    done = await asyncio.to_thread(
        subprocess.run, argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def main() -> int:
    told = Tour()
    with tempfile.TemporaryDirectory(prefix="pgreflex-tour-") as home:
        Path(home).chmod(0o711)
        with EmbeddedServer(Path(home) / "server", database="shop") as server:
            told.say("server", server.version)
            try:
                uvloop.run(tour(server, told))
            except TimeoutError:
                told.say("nothing", f"came within {PATIENCE:g} s; the step after the last line failed")
                return 1
            finally:
                server.stop("immediate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
