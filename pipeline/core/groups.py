"""Tags as caches outside of this process know them: flat names in a header.

Owns: which groups a response belongs to, which of them a change ends, and how they are written. Knows no HTTP.

A shared cache or a CDN knows names and no tree, so what a change touches is spelled out on both sides. A response
that depends on row 7 is in the groups `orders:7` and `orders:*`; one that depends on the whole table is in
`orders`. A change of row 7 ends `orders:7` and `orders`, and one of unknown extent `orders` and `orders:*`, but
never `orders:8`. Every response is in the group `*`, which ends when nobody can say what has changed.

The header of responses is Cache-Groups (RFC 9875), a list of strings in the syntax of RFC 8941.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

from pipeline.core import invalidation
from pipeline.core.events import Event
from pipeline.core.tags import above

EVERYTHING = "*"
MOST_GROUPS = 32  # of one response; a cache may ignore what is beyond (RFC 9875)
PLAIN = ":*,._-@/+"  # besides letters and digits; the rest is written as %XX, so that names have no spaces


def groups_of(tags: Iterable[str]) -> list[str]:
    """The groups of a response that depends on `tags`: at most 32, unless it depends on more tables than that.

    The parts of one table give way to the whole table, the one with the most parts first.
    """
    narrowed = set(tags)
    while len(found := _spelled(narrowed)) > MOST_GROUPS:
        parts = Counter(tag.rpartition(":")[0] for tag in narrowed if ":" in tag)
        if not parts:
            break
        most = max(parts, key=lambda upper: (parts[upper], upper))
        narrowed = {tag for tag in narrowed if tag.rpartition(":")[0] != most} | {most}
    return [written(group) for group in found]


def _spelled(tags: Iterable[str]) -> list[str]:
    found = {EVERYTHING}
    for tag in tags:
        found.add(tag)
        found.update(upper + ":*" for upper in above(tag))
    return sorted(found)


def ended_by(events: Iterable[Event]) -> set[str]:
    """The groups that these events end."""
    found: set[str] = set()
    for event in events:
        if event.op == "e":
            if event.name == invalidation.CHANNEL and (said := invalidation.parse(event.payload)):
                for tag in said.tags:
                    found |= _ended(tag)
                if said.prefix is not None:
                    found |= _ended_below(said.prefix)
        else:
            for tag in event.changed():
                found |= _ended(tag)
    return {written(group) for group in found}


def _ended(tag: str) -> set[str]:
    return {tag, tag + ":*", *above(tag)}


def _ended_below(prefix: str) -> set[str]:
    """Names cannot be asked what they begin with, so the smallest tag above all of them has changed."""
    upper = prefix.rpartition(":")[0]
    return _ended(upper) if upper else {EVERYTHING}


def widened(groups: set[str], most: int) -> set[str]:
    """At most `most` groups that end at least these: rows give way to their whole table, or to everything."""
    if len(groups) <= most:
        return groups
    tables = {group.partition(":")[0] for group in groups if group != EVERYTHING}
    whole = tables | {table + ":*" for table in tables}
    return whole if len(whole) <= most and EVERYTHING not in groups else {EVERYTHING}


def written(group: str) -> str:
    """A group as headers have it: printable, and without spaces."""
    return quote(group, safe=PLAIN)


def cache_groups(groups: Iterable[str]) -> str:
    """The value of the header Cache-Groups; groups are written already."""
    return ", ".join(f'"{group}"' for group in groups)
