"""A hot standby of an embedded server, for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.embedded import EmbeddedServer
from pipeline.embedded.account import run, server_account, server_environment


def standby_of(primary: EmbeddedServer, home: Path) -> EmbeddedServer:
    """A running copy that follows `primary`, in `home`."""
    account = server_account(primary.data)
    home.mkdir()
    if account.dropped:
        shutil.chown(home, account.uid, account.gid)
    argv, env = primary.command("pg_basebackup", "-D", str(home / "data"), "-R", "-X", "stream", "-c", "fast")
    address = {name: value for name, value in env.items() if name.startswith("PG")}
    done = run(argv, {**server_environment(), **address}, user=account.popen)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, argv, stderr=done.stderr)
    if account.dropped:
        shutil.chown(home, 0, 0)
    standby = EmbeddedServer(home, settings={"fsync": "off", "hot_standby": "on"})
    standby.start()
    return standby
