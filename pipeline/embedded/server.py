"""The embedded server's life: start, readiness, stop, and the addresses under which it is found.

Owns: the processes of one server. Must not know: what lies in the home (cluster.py) or how errors are worded
(faults.py).

The server runs in a session of its own, so that a Ctrl-C in the terminal reaches only its owner, who
decides. The guard (guard.py) ends it when the owner cannot.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from pipeline.embedded import cluster, faults
from pipeline.embedded.account import (
    Account,
    client_environment,
    run,
    server_account,
    server_environment,
)
from pipeline.embedded.binaries import Binaries, locate
from pipeline.embedded.guard import LAUNCH, Guard, release
from pipeline.errors import Busy, EmbeddedServerError

Process = subprocess.Popen[bytes]
StopMode = Literal["smart", "fast", "immediate"]

NOTE_EVERY = 2.0  # seconds between two notes to on_wait
_STAGES = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PROVISION = """\
set log_statement = 'none';
set pg_stat_statements.track = 'none';
{role}
select format('create database %I', :'wanted')
 where not exists (select from pg_catalog.pg_database where datname = :'wanted') \\gexec
"""


class EmbeddedServer:
    """A Postgres server that lives in `home` and no longer than this process.

    home: the directory described in the package's docstring; made if missing.
    tcp_port: also listen on 127.0.0.1 with this port; None: only on the local socket.
    settings: server settings that win over postgresql.conf, for example {"fsync": "off"}.
    database: the one in `dsn`; made if missing.
    """

    def __init__(
        self,
        home: Path,
        *,
        tcp_port: int | None = None,
        settings: Mapping[str, str] | None = None,
        database: str = "postgres",
    ) -> None:
        self.home = Path(home).absolute()
        self.data = self.home / "data"
        self.log_path = self.home / "server.log"
        self.database = database
        self._tcp_port = tcp_port
        self._port = tcp_port or 5432
        self._settings = dict(settings or {})
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._stop_asked = threading.Event()
        self._starter: int | None = None
        self._binaries: Binaries | None = None
        self._sockets: Path | None = None
        self._password: str | None = None
        self._claim = -1
        self._guard: Guard | None = None
        self._process: Process | None = None
        self._log_start = 0

    def start(self, *, patience: float = 300.0, on_wait: Callable[[str], None] | None = None) -> None:
        """Start the server and wait until it takes connections; at once if it runs already.

        patience: seconds to wait, since recovery after a crash may take minutes.
        on_wait: hears about every 2 s why it is not ready yet.
        Raises Busy (data in use, port taken) and EmbeddedServerError; nothing is left running then.
        """
        if os.getpid() != self._owner:
            raise EmbeddedServerError("An embedded server belongs to the process that made it.", hint="")
        with self._lock, faults.explained(self.home):
            if self.running:
                return
            self._end("immediate", 0.0)
            self._stop_asked.clear()
            self._starter = threading.get_ident()
            try:
                process = self._process = self._launch()
                self._await_ready(process, time.monotonic() + patience, on_wait)
                self._provision()
                self._starter = None
                self._heed_stop()
            except BaseException:
                self._end("immediate", 10.0)
                raise
            finally:
                self._starter = None

    def stop(self, mode: StopMode = "fast", patience: float = 60.0) -> None:
        """Stop the server and remove its socket directory; idempotent, also while it starts.

        mode: "smart" waits for clients to leave, "fast" ends them, "immediate" leaves recovery to the next
        start.
        patience: seconds that each mode gets before the next harsher one is tried.
        """
        if self._may_end():
            with self._lock:
                self._end(mode, patience)

    def kill(self) -> None:
        """End every process of the server with SIGKILL, as a crash would."""
        if self._may_end():
            with self._lock:
                self._kill_all()
                self._end("immediate", 0.0)

    @property
    def running(self) -> bool:
        """Whether the server's main process lives."""
        process = self._process
        if process is None or os.getpid() != self._owner:
            return False
        if process.poll() is None:
            return True
        if self._guard is not None:  # the number is free from now on: nobody may signal it any more
            self._guard.dismiss()
        return False

    @property
    def pid(self) -> int | None:
        """The server's main process, None when it does not run."""
        process = self._process
        return process.pid if process is not None and self.running else None

    @property
    def dsn(self) -> str:
        """The address of `database` by the local socket; known once started, the same after a restart."""
        return self.dsn_for(self.database)

    def dsn_for(self, database: str) -> str:
        """The address of another database by the local socket."""
        host = quote(str(self._socket_directory), safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={self._port}"

    @property
    def tcp_dsn(self) -> str | None:
        """The address by TCP, with the password; None without a `tcp_port`. Not for logs."""
        if self._tcp_port is None:
            return None
        if self._password is None:
            with faults.explained(self.home):
                self._password = cluster.password(self.home)
        secret, name = quote(self._password, safe=""), quote(self.database, safe="")
        return f"postgresql://postgres:{secret}@127.0.0.1:{self._tcp_port}/{name}"

    @property
    def version(self) -> str:
        """The server's version, such as "18.6"."""
        return self._programs.version

    def bin(self, name: str) -> Path:
        """A program of Postgres: "psql", "pgbench", "pg_dump"."""
        return self._programs.path(name)

    def command(self, name: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """(argv, env) that run a client program of Postgres against `database`."""
        connection = {
            "PGHOST": str(self._socket_directory),
            "PGPORT": str(self._port),
            "PGUSER": "postgres",
            "PGDATABASE": self.database,
        }
        return [str(self.bin(name)), *args], client_environment(connection)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _programs(self) -> Binaries:
        if self._binaries is None:
            with faults.explained(self.home):
                self._binaries = locate(server_account(self.data))
        return self._binaries

    @property
    def _socket_directory(self) -> Path:
        if self._sockets is None:
            raise EmbeddedServerError(
                "The embedded Postgres has no address before its first start.", hint="Start it."
            )
        return self._sockets

    def _launch(self) -> Process:
        account = server_account(self.data)
        binaries = self._binaries = locate(account)
        cluster.prepare_home(self.home, account)
        self._claim = cluster.claim(self.home, self.data)
        durable = self._settings.get("fsync", "on") != "off"
        cluster.ensure_data(self.data, account, binaries, durable=durable)
        self._password = cluster.password(self.home) if self._tcp_port is not None else None
        self._sockets = cluster.make_sockets(account, self._port, self._sockets)
        self._guard = Guard(self._sockets, self.data / "postmaster.pid")
        return self._spawn(account, binaries, self._guard, self._sockets)

    def _spawn(self, account: Account, binaries: Binaries, guard: Guard, sockets: Path) -> Process:
        ours = {
            "listen_addresses": "" if self._tcp_port is None else "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(sockets),
            "logging_collector": "off",
        }
        options = [part for pair in (self._settings | ours).items() for part in ("-c", "=".join(pair))]
        log, self._log_start = cluster.open_log(self.log_path)
        try:
            return subprocess.Popen(  # noqa: S603
                [*LAUNCH, binaries.path("postgres"), "-D", self.data, *options],
                cwd="/",
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=guard.fileno(),
                stderr=log,
                start_new_session=True,
                pass_fds=(self._claim,),
                **account.popen,
            )
        finally:
            os.close(log)

    def _await_ready(self, process: Process, deadline: float, on_wait: Callable[[str], None] | None) -> None:
        ready = ("pg_isready", "--quiet", "--dbname=postgres")
        pause, noted = 0.02, time.monotonic()
        while True:
            self._heed_stop()
            if (status := process.poll()) is not None:
                raise faults.of_server(self._log(), status, self.home, self.log_path)
            if run(*self.command(*ready)).returncode == 0:
                return
            now = time.monotonic()
            if now >= deadline:
                raise EmbeddedServerError(
                    f"The embedded Postgres was not ready in time: {faults.progress(self._log())}.",
                    hint=f"Give it more time. Its log is {self.log_path}.",
                )
            if on_wait is not None and now - noted >= NOTE_EVERY:
                noted = now
                on_wait(faults.progress(self._log()))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _provision(self) -> None:
        """Set the password and make the database; both are no more than a query when already there."""
        if self._password is None and self.database == "postgres":
            return
        role = ""
        if self._password is not None:
            role = f"alter role postgres password '{cluster.verifier(self._password)}';"
        given = ("-v", "ON_ERROR_STOP=1", "-v", f"wanted={self.database}")
        argv, env = self.command("psql", "-X", "-q", "-d", "postgres", *given, "-f", "-")
        done = run(argv, env, text=_PROVISION.format(role=role))
        if done.returncode != 0:
            raise EmbeddedServerError(
                f"The database `{self.database}` could not be made: {done.stderr.strip()}",
                hint=f"The server's log is {self.log_path}.",
            )

    def _heed_stop(self) -> None:
        if self._stop_asked.is_set():
            raise EmbeddedServerError("The embedded Postgres was stopped while it started.", hint="")

    def _may_end(self) -> bool:
        """Ask a start in progress to give up; whether the caller is to end the server then.

        A forked child of the owner has no say. A signal handler that interrupts a start in its own thread
        must not take away what the start works with; the start ends that once the handler has returned.
        """
        if os.getpid() != self._owner:
            return False
        self._stop_asked.set()
        return self._starter != threading.get_ident()

    def _log(self) -> str:
        return cluster.log_tail(self.log_path, self._log_start)

    def _end(self, mode: StopMode, patience: float) -> None:
        """End the processes, then let go of everything that belongs to them."""
        process = self._process
        if process is not None and process.poll() is None:
            order = list(_STAGES)
            for stage in order[order.index(mode) :]:
                process.send_signal(_STAGES[stage])
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(patience, 10.0) if stage == "immediate" else patience)
                    break
            else:
                self._kill_all()
        if self._guard is not None:
            self._guard.dismiss()
        if self._claim >= 0:  # held since the launch: what was made there may be there still
            if self._sockets is not None:
                shutil.rmtree(self._sockets, ignore_errors=True)
            release(self._claim)
        self._process, self._guard, self._claim = None, None, -1

    def _kill_all(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGSTOP)  # so that it starts no child meanwhile
        for child in cluster.children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
        # The children hold the claim as well: once it can be had anew, the last of them has ended.
        release(self._claim)
        self._claim = -1
        with suppress(Busy):
            self._claim = cluster.claim(self.home, self.data)
