"""What is told of the caches: of one process, and of all of them together.

Owns: the sums, and what is left out so that a report fits into an event. Knows nothing of how it travels.

Names of namespaces leave the process, keys never do: they hold values of the application.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from pipeline.core.cache_check import Tally, fresh_share
from pipeline.core.cache_namespace import Namespace
from pipeline.core.status import CacheStatus, NamespaceFigures

MOST_TOLD = 12  # namespaces in a report: 12 of 80 characters and nine figures are below 4 kB
MOST_SHOWN = 24  # of all processes together
LONGEST_NAME = 80
OTHERS = ""  # the name under which the rest is summed up

_COUNTED = frozenset(NamespaceFigures.__struct_fields__) - {"name"}
_NOT_SUMMED = {"hit_ratio", "age_bound_seconds", "fresh_within_1s", "gone", "refused", "namespaces"}


def told(spaces: Iterable[Namespace], tally: Tally) -> CacheStatus:
    """The part of a process's status that its namespaces and its checks make."""
    spaces = tuple(spaces)
    gone: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for space in spaces:
        gone.update(space.gone)
        refused.update(space.refused)
    return CacheStatus(
        hits_total=sum(space.hits for space in spaces),
        misses_total=sum(space.misses for space in spaces),
        bypassed_total=sum(space.bypassed for space in spaces),
        stale_total=sum(space.stale for space in spaces),
        saved_seconds_total=sum(space.saved_seconds for space in spaces),
        gone=dict(gone),
        refused=dict(refused),
        namespaces=foremost(map(_figures, spaces), MOST_TOLD),
        checks_total=tally.checks,
        fresh_within_1s_total=tally.within_1s,
        fresh_within_60s_total=tally.within_60s,
        violations_total=tally.violations,
        uncheckable_total=tally.uncheckable.total(),
        fresh_within_1s=fresh_share(tally.within_1s, tally.checks),
    )


def together(caches: Sequence[CacheStatus]) -> CacheStatus:
    """Sums, and for the ratio and the bound what holds for all of them."""
    counted = {
        name: sum(getattr(cache, name) for cache in caches)
        for name in CacheStatus.__struct_fields__
        if name not in _NOT_SUMMED
    }
    ratios = [(c.hit_ratio, c.hits_total + c.misses_total) for c in caches if c.hit_ratio is not None]
    weight = sum(reads for _ratio, reads in ratios)
    bounds = [cache.age_bound_seconds for cache in caches]
    return CacheStatus(
        **counted,
        hit_ratio=sum(ratio * reads for ratio, reads in ratios) / weight if weight else None,
        age_bound_seconds=None if None in bounds else max(b for b in bounds if b is not None),
        fresh_within_1s=fresh_share(counted["fresh_within_1s_total"], counted["checks_total"]),
        gone=_sum(cache.gone for cache in caches),
        refused=_sum(cache.refused for cache in caches),
        namespaces=foremost((space for cache in caches for space in cache.namespaces), MOST_SHOWN),
    )


def foremost(spaces: Iterable[NamespaceFigures], most: int) -> tuple[NamespaceFigures, ...]:
    """One of each name, those asked for most first; what is beyond `most` is one more, named OTHERS."""
    found: dict[str, NamespaceFigures] = {}
    for space in spaces:
        known = found.get(space.name)
        found[space.name] = space if known is None else _add(known, space)
    others = found.pop(OTHERS, None)
    ranked = sorted(found.values(), key=lambda space: (-space.hits_total - space.misses_total, space.name))
    for space in ranked[most:]:
        rest = structs.replace(space, name=OTHERS)
        others = rest if others is None else _add(others, rest)
    return (*ranked[:most], *(() if others is None else (others,)))


def _figures(space: Namespace) -> NamespaceFigures:
    return NamespaceFigures(
        name=_short(space.name),
        entries=space.entries,
        bytes=space.bytes,
        hits_total=space.hits,
        misses_total=space.misses,
        stale_total=space.stale,
        bypassed_total=space.bypassed,
        refused_total=space.refused.total(),
        saved_seconds_total=round(space.saved_seconds, 6),
    )


def _short(name: str) -> str:
    """The end of a name tells more than its beginning: `...orders.views.load_order`."""
    return name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :]


def _add(one: NamespaceFigures, other: NamespaceFigures) -> NamespaceFigures:
    return structs.replace(one, **{name: getattr(one, name) + getattr(other, name) for name in _COUNTED})


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
