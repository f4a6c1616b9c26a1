"""The other queues: where they come from, and how each is driven.

Owns: what is installed, into a cache directory outside the repository, and the reason where something cannot be
had. The programs that drive them are in bench/peers; each prints its rate and ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import msgspec
import platformdirs

from bench.jobs_child import child
from bench.jobs_kit import Bench, amount

HERE = Path(__file__).with_name("peers")
INSTALL_SECONDS = 300
RUN_SECONDS = 120.0
NODE_PACKAGES = ("graphile-worker@0.17", "bullmq", "ioredis", "pg")
PYTHON_PACKAGES = ("pgqueuer", "procrastinate", "psycopg[binary,pool]", "awa-pg", "asyncpg", "uvloop")
# what redis-server of Debian 12 needs beyond a plain system, and what its neighbours call the same
DEBIAN_PACKAGES = (
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblzf1",
    "liblua5.1-0",
    "lua-cjson",
)
DEBIAN_MAYBE = ("lua-bitop", "libhiredis0.14", "libhiredis1.1.0")


class Peer(msgspec.Struct):
    """A queue to compare with. absent: why it cannot be had, or empty."""

    name: str
    package: str
    program: str
    jobs: int
    version: str = ""
    absent: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}".strip()


class NotToBeHad(Exception):
    """The reason, in words."""


def peers() -> list[Peer]:
    """All of them; how many jobs each runs is some seconds' work at its pace."""
    return [
        Peer("graphile-worker", "graphile-worker", "graphile_worker.mjs", amount(60_000, 10_000)),
        Peer("BullMQ", "bullmq", "bullmq.mjs", amount(40_000, 5_000)),
        Peer("pgqueuer", "pgqueuer", "pgqueuer_noop.py", amount(20_000, 5_000)),
        Peer("procrastinate", "procrastinate", "procrastinate_noop.py", amount(2_000, 300)),
        Peer("awa", "awa-pg", "awa_noop.py", amount(20_000, 5_000)),
    ]


def cache() -> Path:
    """Where peers are kept; outlives the run."""
    return platformdirs.user_cache_path("pgreflex-bench")


def available(bench: Bench) -> list[Peer]:
    """Every peer, installed where that is possible, with its version or the reason for its absence."""
    node, python, redis_missing = _tried(bench, node_home), _tried(bench, python_home), ""
    with_reason = peers()
    try:
        redis_command()
    except NotToBeHad as error:
        redis_missing = str(error)
    for peer in with_reason:
        peer.absent = node if peer.program.endswith(".mjs") else python
        if peer.name == "BullMQ":
            peer.absent = peer.absent or redis_missing
        if not peer.absent:
            peer.version = _version(peer)
    return with_reason


def _tried(bench: Bench, install: object) -> str:
    """The reason why it cannot be installed, or nothing."""
    assert callable(install)
    try:
        install()
    except NotToBeHad as error:
        return str(error)
    return ""


def _version(peer: Peer) -> str:
    if peer.program.endswith(".mjs"):
        text = (node_home() / "node_modules" / peer.package / "package.json").read_bytes()
        return str(msgspec.json.decode(text)["version"])
    found = distributions(name=peer.package, path=[str(next((python_home() / "lib").glob("*/site-packages")))])
    return next((one.version for one in found), "")


def node_home() -> Path:
    """The directory whose node_modules holds the peers. Raises NotToBeHad."""
    home = cache() / "node"
    wanted = "\n".join(NODE_PACKAGES)
    if _made(home, wanted):
        return home
    if not (shutil.which("node") and shutil.which("npm")):
        raise NotToBeHad("node and npm are not on PATH")
    (home / "package.json").write_text('{"private": true}\n')
    _run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", home, *NODE_PACKAGES)
    (home / ".made").write_text(wanted)
    return home


def python_home(name: str = "python", packages: Sequence[str] = PYTHON_PACKAGES) -> Path:
    """An environment with peers from PyPI. Raises NotToBeHad."""
    home = cache() / f"{name}{sys.version_info.major}.{sys.version_info.minor}"
    wanted = "\n".join(packages)
    if _made(home, wanted):
        return home
    _run(sys.executable, "-m", "venv", home)
    pip = (home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, *packages)
    (home / ".made").write_text(wanted)
    return home


def redis_command() -> list[str]:
    """The command that starts a Redis: of the system, or of Debian's package unpacked. Raises NotToBeHad."""
    if installed := shutil.which("redis-server"):
        return [installed]
    home = cache() / "redis"
    command = ["env", f"LD_LIBRARY_PATH={':'.join(map(str, home.glob('root/usr/lib/*')))}"]
    command.append(str(home / "root/usr/bin/redis-server"))
    if _made(home, "redis"):
        return command
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotToBeHad("redis-server is not on PATH, and this is no Debian")
    _run("apt-get", "download", *DEBIAN_PACKAGES, cwd=home)
    for name in DEBIAN_MAYBE:
        with suppress(NotToBeHad):
            _run("apt-get", "download", name, cwd=home)
    for package in home.glob("*.deb"):
        _run("dpkg-deb", "-x", package, home / "root")
    command[1] = f"LD_LIBRARY_PATH={':'.join(map(str, home.glob('root/usr/lib/*')))}"
    _run(*command, "--version")
    (home / ".made").write_text("redis")
    return command


def _made(home: Path, wanted: str) -> bool:
    """Whether this was installed here before; else the directory is empty afterwards."""
    mark = home / ".made"
    if mark.exists() and mark.read_text() == wanted:
        return True
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return False


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    print(f"         {Path(argv[0]).name} {' '.join(map(str, argv[1:]))[:100]}", flush=True)
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{Path(argv[0]).name}: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotToBeHad(f"{Path(argv[0]).name} failed: {lines[-1][:200] if lines else done.returncode}")


def with_host(dsn: str) -> str:
    """The same address with the socket's directory as its host: not every driver reads it from the query."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = quote(query["host"][0], safe="")
    return f"postgresql://postgres@{host}:{query['port'][0]}{parts.path}"


@asynccontextmanager
async def redis(found: Sequence[Peer]) -> AsyncIterator[int]:
    """A Redis for the block, where a peer needs one; its port.

    It flushes its log once a second, as BullMQ's makers advise: less durable than Postgres, which flushes before
    it answers.
    """
    if not any(peer.name == "BullMQ" and not peer.absent for peer in found):
        yield 0
        return
    with tempfile.TemporaryDirectory(prefix="pgreflex-bench-redis-") as home:
        port = free_port()
        options = [
            "--bind", "127.0.0.1", "--port", str(port), "--dir", home, "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--logfile", f"{home}/log",
        ]  # fmt: skip
        # the shell ends it when its own input ends, as all our children end
        script = '"$@" & pid=$!; cat >/dev/null; kill $pid; wait $pid'
        async with child("redis", ["sh", "-c", script, "sh", *redis_command(), *options]):
            await _listening(port)
            yield port


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError):
                _reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def rate(bench: Bench, peer: Peer, redis_port: int) -> float:
    """Jobs a second of one peer, in a database of its own."""
    program = HERE / peer.program
    async with bench.database("peer", "template1") as dsn:
        where = str(redis_port) if peer.name == "BullMQ" else with_host(dsn)
        if program.suffix == ".mjs":
            argv: list[str | Path] = ["node", program, where, str(peer.jobs)]
            home = node_home()
        else:
            argv = [python_home() / "bin" / "python", program, where, str(peer.jobs)]
            home = HERE
        env = {"NODE_ENV": "production", "PYTHONPATH": "", "PGUSER": os.environ.get("PGUSER", "postgres")}
        async with child(peer.name, argv, env=env, cwd=home) as running:
            return float(await running.hear("rate", RUN_SECONDS))
