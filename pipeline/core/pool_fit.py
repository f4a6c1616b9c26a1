"""Whether a pool fits into its server.

Owns: the arithmetic and the words. Knows nothing of how the figures are had.

A server has `max_connections` slots, some of which are kept for superusers and for roles with
pg_use_reserved_connections. A pool that may grow beyond the rest fails when it is busiest, with "too many
clients", so it is told when it opens.
"""

from __future__ import annotations

import re

import msgspec

_MARK = re.compile(r"\(pool of (\d+), [0-9a-f]{8}\)$")
LONGEST_NAME = 63  # bytes that a server keeps of an application_name


class Room(msgspec.Struct, frozen=True):
    """What a server says of its connections. limit: max_connections, or what the role or the database is
    limited to. reserved: slots that this role may not use. taken: connections of others, that is, of all but this
    pool. pools: application names of all other pools that are connected, once each.
    """

    limit: int
    reserved: int
    taken: int
    pools: tuple[str, ...] = ()
    whose: str = "max_connections"

    @property
    def usable(self) -> int:
        return max(0, self.limit - self.reserved)


class Fit(msgspec.Struct, frozen=True):
    """problem: what is wrong, or None. fatal: not even the pool alone would fit, however idle all others are."""

    problem: str | None = None
    fatal: bool = False


def mark(name: str, most: int, token: str) -> str:
    """The application name of a pool's connections, from which other pools read how large it may get."""
    tail = f" (pool of {most}, {token})"
    head = name.encode()[: LONGEST_NAME - len(tail)].decode(errors="ignore")
    return head + tail


def size_of(application_name: str) -> int | None:
    """How large the pool of this application name may get; None: it is no pool's."""
    found = _MARK.search(application_name)
    return None if found is None else int(found[1])


def fit(name: str, most: int, room: Room) -> Fit:
    """Compare a pool of at most `most` connections with the room that there is."""
    figures = f"{room.whose} {room.limit}, of which {room.reserved} are reserved"
    if most > room.usable:
        return Fit(
            f'pool "{name}" may open {most} connections, more than the server has for it: '
            f"{room.usable} ({figures})",
            fatal=True,
        )
    others = [size for size in map(size_of, room.pools) if size is not None]
    together = most + sum(others)
    if together > room.usable:
        return Fit(
            f'pool "{name}" of {most} and {len(others)} other pools of pgreflex may together open {together} '
            f"connections, more than the server has for them: {room.usable} ({figures})"
        )
    if most + room.taken > room.usable:
        return Fit(
            f'pool "{name}" may open {most} connections, but others hold {room.taken} of the {room.usable} that '
            f"the server has ({figures}), which leaves {max(0, room.usable - room.taken)}"
        )
    return Fit()
