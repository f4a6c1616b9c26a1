"""What went wrong, in words that tell the user what to do.

Owns: turning errors of the operating system and lines of the server's log into our errors.
Must not know: how servers run. Reads nothing but what it is given and the free space of a disk.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Busy, EmbeddedServerError, PgreflexError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXT = re.compile(r"No space left on device|Disk quota exceeded")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FATAL = re.compile(r"(?:FATAL|PANIC|initdb: error):\s+(.*)")
_SMALLEST_FREE = 256 * 1024  # bytes; a server whose log has no room says nothing at all

# Newest first wins: the log is read from its end.
_PROGRESS = (
    ("redo in progress", "recovering after a crash"),
    ("redo starts at", "recovering after a crash"),
    ("redo done at", "recovering after a crash, nearly done"),
    ("automatic recovery in progress", "recovering after a crash"),
    ("syncing data directory", "recovering after a crash: syncing the data directory"),
    ("database system was interrupted", "recovering after a crash"),
)


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn an OSError of the block into an EmbeddedServerError about `home`."""
    try:
        yield
    except OSError as error:
        raise _of_system(error, home) from error


def of_server(log: str, status: int, home: Path, log_path: Path) -> PgreflexError:
    """Why the server, or initdb, ended with exit status `status` after it had written `log`."""
    if _FULL_TEXT.search(log) or _is_full(home):
        return disk_full(home)
    if taken := re.search(r'could not bind .*"(.*)": (Address already in use)', log):
        return Busy(
            f"The embedded Postgres cannot listen on {taken[1]}: the port is taken by another program.",
            hint="Choose another port, or end the program that uses it.",
        )
    reasons = _FATAL.findall(log) or [line for line in log.splitlines() if line.strip()]
    reason = reasons[-1].strip() if reasons else f"exit status {status}, and nothing in its log"
    return EmbeddedServerError(f"The embedded Postgres did not start: {reason}", hint=f"Its log is {log_path}.")


def progress(log: str) -> str:
    """What a server that is not ready yet is busy with, after its log."""
    for line in reversed(log.splitlines()):
        for sign, meaning in _PROGRESS:
            if sign in line:
                elapsed = re.search(r"elapsed time: ([\d.]+ s)", line)
                return f"{meaning} ({elapsed[1]} so far)" if elapsed else meaning
    return "starting"


def disk_full(home: Path) -> EmbeddedServerError:
    """The disk that holds `home` has no room."""
    return EmbeddedServerError(
        f"The disk that holds {home} is full.",
        hint="Free some space there (a new cluster needs about 60 MB) or choose another directory.",
    )


def _is_full(home: Path) -> bool:
    try:
        disk = os.statvfs(home)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _SMALLEST_FREE


def _of_system(error: OSError, home: Path) -> EmbeddedServerError:
    place = os.fspath(error.filename) if isinstance(error.filename, str | Path) else str(home)
    if error.errno in _FULL:
        return disk_full(home)
    if error.errno in _FORBIDDEN:
        return EmbeddedServerError(
            f"The embedded Postgres may not use {place}: {error.strerror}.",
            hint=f"Choose a home directory that you can write to, or become the owner of {home}.",
        )
    return EmbeddedServerError(
        f"The embedded Postgres cannot use {place}: {error.strerror or error}.",
        hint="Choose another home directory.",
    )
