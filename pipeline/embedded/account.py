"""Whom the server runs as, and in which surroundings.

Owns: dropping root's rights for a child process, and the environment that a child of ours gets.
Must not know: what the child is.

Postgres refuses to run as root. Root therefore becomes the owner of the data directory, or `nobody` where
there is none yet. No user is added, and no permission of a directory that we did not make is touched. What
that user can reach is found out by trying, since only the kernel knows every rule that applies.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pipeline.errors import EmbeddedServerError


class PopenUser(TypedDict, total=False):
    """The arguments of subprocess that change the user; empty where it stays."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """The user that initdb and postgres run as. `dropped`: it is not the user of this process."""

    uid: int
    gid: int
    dropped: bool

    @property
    def name(self) -> str:
        """The user's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def popen(self) -> PopenUser:
        """What to pass to subprocess so that the child runs as this user."""
        if not self.dropped:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a short command as this user, in the server's surroundings, and wait for it."""
        return run(argv, server_environment(), user=self.popen)

    def reaches(self, directory: Path) -> bool:
        """Whether this user can enter the directory."""
        if not self.dropped:
            return os.access(directory, os.X_OK)
        try:
            return self.run("/bin/sh", "-c", 'cd "$1"', "sh", directory).returncode == 0
        except OSError as error:
            raise EmbeddedServerError(
                f"Postgres does not run as root, and this process may not become `{self.name}`: {error.strerror}.",
                hint="Run as an ordinary user, or grant the capabilities SETUID and SETGID.",
            ) from error


def run(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    *,
    text: str = "",
    user: PopenUser | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a short command with `text` as its input and wait for it; OSError where it cannot be executed.

    It starts in `/`, since the present directory may be closed to the user.
    """
    return subprocess.run(  # noqa: S603
        argv,
        cwd="/",
        env=env,
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        check=False,
        **(user or {}),
    )


def current_account() -> Account:
    """The user of this process."""
    return Account(os.geteuid(), os.getegid(), dropped=False)


def server_account(data: Path) -> Account:
    """The user for the server whose data directory is `data`, which need not exist yet."""
    if os.geteuid() != 0:
        return current_account()
    try:
        owner = data.stat()
    except FileNotFoundError:
        owner = None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, dropped=True)
    if owner is not None and any(data.iterdir()):
        raise EmbeddedServerError(
            f"{data} belongs to root, and Postgres does not run as root.",
            hint=f"Give it to an ordinary user, for example: chown -R nobody {data}",
        )
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534, dropped=True)
    return Account(nobody.pw_uid, nobody.pw_gid, dropped=True)


def server_environment() -> dict[str, str]:
    """The environment of the server: neither the owner's locale, nor its PG* variables, nor its secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", **_libraries()}


def client_environment(connection: Mapping[str, str]) -> dict[str, str]:
    """The environment of a client program: the owner's, with `connection` in place of its PG* variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LD_LIBRARY_PATH"))}
    return {**kept, **_libraries(), **connection}


def _libraries() -> dict[str, str]:
    # A one-file build points LD_LIBRARY_PATH at its own libraries and keeps the user's value, if any, aside.
    name = "LD_LIBRARY_PATH"
    value = os.environ.get(f"{name}_ORIG" if hasattr(sys, "_MEIPASS") else name)
    return {name: value} if value else {}
