"""The home of an embedded server: its directory, lock, data, password and sockets.

Owns: what lies in the home and who may touch it, and the making of a new cluster.
Must not know: how servers start and stop; only whether one uses the data, and which processes are its.

Modes. An ordinary user's home is 0700. Root's home stays root's own and is 0711: the server, which runs as
another user, passes through it to `data`, which is that user's, yet can replace neither the password nor
the log, and nobody else can list it. A directory that already holds something keeps its mode.

The lock is an flock on the home itself. The server inherits the descriptor, so the lock lasts until the last
process of the server has ended, whatever became of the owner. Who holds it may take a pid file for stale.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_state_path

from pipeline.embedded import faults
from pipeline.embedded.account import Account
from pipeline.embedded.binaries import Binaries
from pipeline.embedded.guard import private, release
from pipeline.errors import Busy, EmbeddedServerError

BUSY_PATIENCE = 10.0  # seconds; a predecessor's fast shutdown writes a checkpoint first
FRESH_SECONDS = 60.0  # a temporary home younger than this may not have been locked yet
_LOG_LIMIT = 10 * 1024 * 1024  # bytes
_LOG_TAIL = 64 * 1024  # bytes
_LONGEST_SOCKET = 103  # bytes; sun_path less its end: 107 on Linux, 103 on macOS

# Written into postgresql.conf once, so that ALTER SYSTEM can change them; for a machine with 1 GB.
_DEFAULTS = {
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "track_io_timing": "on",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "pgreflex",
}


def default_home() -> Path:
    """Where the server lives unless told otherwise."""
    return Path("/var/lib/pgreflex") if os.geteuid() == 0 else user_state_path("pgreflex")


def prepare_home(home: Path, account: Account) -> None:
    """Make the home directory, and see that the server's user can pass through it."""
    home.mkdir(parents=True, exist_ok=True)
    fresh = not any(home.iterdir())
    if fresh:
        home.chmod(0o711 if account.dropped else 0o700)
    if not account.reaches(home):
        if fresh:
            home.rmdir()
        raise EmbeddedServerError(
            f"The user `{account.name}`, as whom Postgres runs, cannot reach {home}: one of the directories "
            "above it, or itself, is closed.",
            hint="Choose a home outside of closed directories such as /root, for example "
            "/var/lib/pgreflex, or run pgreflex as an ordinary user.",
        )


def claim(home: Path, data: Path) -> int:
    """Lock the home; the descriptor holds the lock. Busy where a living server keeps it."""
    descriptor = private(os.open(home, os.O_RDONLY | os.O_DIRECTORY))
    deadline = time.monotonic() + BUSY_PATIENCE
    while True:
        locked = _lock(descriptor)
        holder = _pid_in(data)
        if locked and (holder is None or not _is_server(holder, data)):
            if holder is not None and Path(f"/proc/{holder}").exists():
                (data / "postmaster.pid").unlink()  # the number went to an unrelated process
            return descriptor
        if time.monotonic() >= deadline:
            release(descriptor)
            who = f"a server with pid {holder}" if holder else "another pgreflex that starts or ends"
            raise Busy(
                f"The data in {home} is in use by {who}.",
                hint=f"Stop it first (kill -INT {holder})." if holder else "Try again.",
            )
        time.sleep(0.1)


def remove_abandoned(base: Path, prefix: str) -> None:
    """Remove the temporary homes below `base` whose owner was killed: old enough, unlocked, without a server."""
    for home in base.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - home.stat().st_mtime < FRESH_SECONDS:
                continue
            descriptor = private(os.open(home, os.O_RDONLY | os.O_DIRECTORY))
            try:
                holder = _pid_in(home / "data")
                if _lock(descriptor) and (holder is None or not _is_server(holder, home / "data")):
                    shutil.rmtree(home, ignore_errors=True)
            finally:
                release(descriptor)


def ensure_data(data: Path, account: Account, binaries: Binaries, *, durable: bool) -> None:
    """Make the cluster unless it is there; made aside and renamed, so that it is whole or absent."""
    for leftover in data.parent.glob("data.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if (data / "PG_VERSION").exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != binaries.major:
            raise EmbeddedServerError(
                f"The data in {data} is of Postgres {found}, the embedded server is {binaries.version}.",
                hint=f"Dump it with Postgres {found} and restore it, or move it away to start anew.",
            )
        return
    if data.exists():
        if any(data.iterdir()):
            raise EmbeddedServerError(
                f"{data} holds something that is not the data of a Postgres server.",
                hint="Move it away, or choose another home directory.",
            )
        data.rmdir()
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=data.parent))
    try:
        if account.dropped:
            os.chown(fresh, account.uid, account.gid)
        _initdb(fresh, account, binaries, durable=durable)
        fresh.rename(data)
        _sync(data.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _initdb(fresh: Path, account: Account, binaries: Binaries, *, durable: bool) -> None:
    options = [
        f"--pgdata={fresh}",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
    ]
    options += [f"--set={name}={value}" for name, value in _DEFAULTS.items()]
    done = account.run(binaries.path("initdb"), *options, *([] if durable else ["--no-sync"]))
    if done.returncode != 0:
        raise faults.of_server(done.stdout + done.stderr, done.returncode, fresh.parent, fresh.parent)


def password(home: Path) -> str:
    """The password for TCP, made on first use."""
    path = home / "password"
    if not path.exists():
        aside = home / "password.new"
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    return path.read_text().strip()


def verifier(secret: str) -> str:
    """What the server stores of a password (RFC 5803), so that the password itself never goes to it."""
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${rounds}:{texts[0]}${texts[1]}:{texts[2]}"


def open_log(path: Path) -> tuple[int, int]:
    """The log's descriptor for a server, and where what that server writes will begin."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > _LOG_LIMIT:
        os.ftruncate(log, 0)
    return log, os.fstat(log).st_size


def log_tail(path: Path, start: int) -> str:
    """The end of the log, of what stands behind `start`."""
    with suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _LOG_TAIL))
        return file.read().decode("utf-8", "replace")
    return ""


def make_sockets(account: Account, port: int, former: Path | None) -> Path:
    """A directory that only the server's user (and root) can enter.

    It takes the place of `former` if that is free, so that an address survives a restart.
    """
    if former is not None:
        with suppress(OSError):
            former.mkdir(0o700)
            return _given(former, account)
    runtime = "/run" if account.dropped else os.environ.get("XDG_RUNTIME_DIR", "")
    for base in filter(None, (runtime, tempfile.gettempdir(), "/tmp")):  # noqa: S108
        length = len(os.fsencode(base)) + len(f"/pgreflex-xxxxxxxx/.s.PGSQL.{port}")
        if length > _LONGEST_SOCKET or not os.access(base, os.W_OK | os.X_OK):
            continue
        if account.reaches(Path(base)):
            made = Path(tempfile.mkdtemp(prefix="pgreflex-", dir=base))
            return _given(made, account)
    raise EmbeddedServerError(
        "There is no directory for the socket of the embedded Postgres.",
        hint="Make /tmp writable, or set TMPDIR to a short path that is.",
    )


def children(parent: int) -> list[int]:
    """The children of a process; none where there is no /proc (a server's children end soon after it)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            behind_name = path.read_text().rpartition(")")[2].split()
            if int(behind_name[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _given(directory: Path, account: Account) -> Path:
    if account.dropped:
        os.chown(directory, account.uid, account.gid)
    return directory


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems know no locks; the pid file has to do there
        return True
    return True


def _pid_in(data: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return abs(int((data / "postmaster.pid").read_text().split()[0]))
    return None


def _is_server(pid: int, data: Path) -> bool:
    """Whether the process serves this data: a server's working directory is its data directory."""
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
        os.kill(pid, 0)
    except OSError:
        return False
    return True  # elsewhere a living process with that number has to be taken for it


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
