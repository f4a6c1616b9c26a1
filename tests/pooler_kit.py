"""A real PgBouncer between us and the server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
IGNORED = "default_transaction_isolation,enable_seqscan,enable_bitmapscan,jit,plan_cache_mode,lock_timeout"
NOBODY = 65534
# Whatever of ours could stay in a session. PgBouncer sets application_name itself, for each client that uses it.
LEFT = """
select name as what, setting as value from pg_settings
where source = 'session' and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone')
union all select 'prepared statement', name from pg_prepared_statements
union all select 'listening', c from pg_listening_channels() as c
union all select 'advisory lock', objid::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
"""

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer: apt-get install pgbouncer")


@contextmanager
def pgbouncer(dsn: str, *, mode: str = "transaction", size: int = 5, settings: str = "") -> Iterator[str]:
    """The address of the database of `dsn` through a pooler of its own. size: server sessions at most."""
    assert PGBOUNCER is not None
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
    server_port = query.get("port", [str(parts.port or 5432)])[0]
    home = Path(tempfile.mkdtemp(prefix="pgreflex-pgbouncer-"))
    home.chmod(0o755)
    port = _free_port()
    users, ini = home / "users", home / "pgbouncer.ini"
    users.write_text(f'"{unquote(parts.username or "postgres")}" "{unquote(parts.password or "")}"\n')
    ini.write_text(
        f"[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
        f"default_pool_size = {size}\nmax_client_conn = 200\n{settings}\n"
    )
    account = _account(host)
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [PGBOUNCER, str(ini)],
            stdout=log,
            stderr=log,
            user=account,
            group=account,
            extra_groups=[] if account else None,
        )
    try:
        _wait_for(port, process, home / "log")
        yield f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home)


async def left_behind(dsn: str, *, most: int = 5) -> list[tuple[str, str]]:
    """What the pooler's server sessions hold: all of them are looked into, each through a client of its own."""
    clients = [await asyncpg.connect(dsn, statement_cache_size=0) for _ in range(most)]
    found: list[tuple[str, str]] = []
    try:
        for client in clients:
            await client.execute("begin")  # keeps its server session, so that the next client gets another
            found += [(row["what"], row["value"]) for row in await client.fetch(LEFT)]
    finally:
        for client in clients:
            await client.execute("rollback")
            await client.close()
    return found


def _account(host: str) -> int | None:
    """PgBouncer refuses to run as root; the socket of the server belongs to whoever runs that."""
    if os.getuid() != 0:
        return None
    return Path(host).stat().st_uid if host.startswith("/") else NOBODY


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"pgbouncer did not start: {log.read_text()}")
