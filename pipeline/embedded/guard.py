"""The guard: a tiny process that ends the server when its owner is gone, in whatever way.

Owns: the pipe between owner and guard. Must not know: how a server is started or stopped in good order.

The owner holds the only writing end of a pipe; the guard reads the other. The kernel closes the pipe when
the owner ends, kill -9 included, and the guard then asks the server for a fast shutdown, after 60 s for an
immediate one, and after 70 s kills it. In the end it removes the socket directory. PR_SET_PDEATHSIG would
not do: it fires when the THREAD that started the server ends.

Children that the owner starts by exec do not get the pipe; one that it forks without exec (multiprocessing)
would keep it open after the owner's end, hence `private`.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from pipeline.embedded.account import server_environment

# The first line names the server, the second one says that the owner has ended it itself. Signals are
# ignored because a service manager sends them to every process of the service, and the guard has to outlive
# the owner. The signal is repeated: a server that has only just been started may not listen to the first
# one. Without its pid file, a server that still takes signals is a zombie that nobody reaps.
_SCRIPT = """
trap '' HUP INT TERM
if read -r pid && ! read -r _; then
    tick=0 signal=INT
    while kill -s $signal "$pid" 2>/dev/null; do
        tick=$((tick + 1))
        case $tick in 600) signal=QUIT ;; 700) signal=KILL ;; 720) break ;; esac
        if [ $tick -ge 50 ] && [ ! -e "$2" ]; then break; fi
        sleep 0.1
    done
fi
rm -f "$1"/.s.PGSQL.*
rmdir "$1"
"""

# The launcher names itself to the guard before it becomes the server, so that there is no moment at which a
# server runs unknown to the guard; then it lets go of the pipe (its stdout) for the log (its stderr).
LAUNCH = ("/bin/sh", "-c", 'echo $$ && exec "$@" >&2', "sh")


class Guard:
    """A running guard. `fileno()` is the pipe, which the launcher gets as its stdout."""

    def __init__(self, sockets: Path, pid_file: Path) -> None:
        reader, writer = os.pipe()
        self._writer = private(writer)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", _SCRIPT, "pgreflex-guard", sockets, pid_file],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=server_environment(),
                start_new_session=True,
            )
        except BaseException:
            self.forget()
            raise
        finally:
            os.close(reader)

    def fileno(self) -> int:
        """The writing end of the pipe."""
        return self._writer

    def dismiss(self) -> None:
        """Tell the guard that the server has ended; it removes the socket directory and goes. Idempotent."""
        with suppress(OSError):
            if self._writer >= 0:
                os.write(self._writer, b"done\n")
        self.forget()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Close our end of the pipe."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            release(writer)


_private: set[int] = set()


def private(descriptor: int) -> int:
    """Keep a descriptor from the children that this process forks, until `release`."""
    _private.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Close a private descriptor."""
    _private.discard(descriptor)
    os.close(descriptor)


def _close_in_child() -> None:
    while _private:
        os.close(_private.pop())


os.register_at_fork(after_in_child=_close_in_child)
