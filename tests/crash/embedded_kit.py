"""What the tests of the embedded server share: homes, owner processes, what is left behind."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.embedded import EmbeddedServer

FAST = {"fsync": "off"}
ROOT = Path(__file__).parents[2]
NOBODY = pwd.getpwnam("nobody").pw_uid

# The interpreter may lie below a closed directory, so the owner imports first and changes its user then.
_OWNER = """
import json, os, signal, subprocess, sys
from pathlib import Path
from pipeline.embedded import EmbeddedServer
home, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid != os.geteuid():
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
server = EmbeddedServer(home, settings={"fsync": "off"})
def say(**more):
    told = {"pid": server.pid, "dsn": server.dsn, "sockets": str(server._sockets), **more}
    print(json.dumps(told), flush=True)
server.start()
say()
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "ask":
        argv, env = server.command("psql", "-XAtqc", rest)
        say(answer=subprocess.run(argv, env=env, capture_output=True, text=True, cwd="/").stdout.strip())
    elif verb == "crash":
        server.kill(); server.start(); say()
    elif verb == "stop":
        server.stop(); say()
    elif verb == "fork":
        child = os.fork()
        if child == 0:
            signal.pause()
        say(child=child)
"""


class Owner:
    """A process that owns a server; `told` is what it said last."""

    def __init__(self, home: Path, uid: int) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWNER, str(home), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.told: dict[str, Any] = {}
        self._hear()

    def tell(self, line: str) -> dict[str, Any]:
        """Give one order and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline())
        return self.told

    def end(self, number: int) -> None:
        """Send a signal and wait for the end of the owner; its pipes are closed."""
        self.process.send_signal(number)
        self.process.communicate()


@contextmanager
def owner(home: Path, uid: int) -> Iterator[Owner]:
    """An owner that is killed in the end."""
    started = Owner(home, uid)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.end(signal.SIGKILL)


@contextmanager
def directory(mode: int = 0o711, uid: int | None = None) -> Iterator[Path]:
    """A directory below the system's temporary one, which every user can pass through."""
    made = Path(tempfile.mkdtemp(prefix="pgr-"))
    try:
        made.chmod(mode)
        if uid is not None:
            os.chown(made, uid, -1)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def ask(server: EmbeddedServer, sql: str) -> str:
    """The answer of psql, unaligned."""
    argv, env = server.command("psql", "-XAtqc", sql)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def left(home: Path, sockets: str) -> list[str]:
    """The processes that serve or guard a home, or run in it; and the socket directory if it is there."""
    found = [sockets] if Path(sockets).exists() else []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE or "-c\n" in words:
                continue
            if process.cwd().startswith(str(home)) or ("pgreflex-guard" in words and sockets in words):
                found.append(f"{process.pid} {words}")
    return found


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True
