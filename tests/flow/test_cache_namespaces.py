"""Times to live, copies, bounds and figures of each kind of values."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.cache import Cache
from pipeline.core.cache_namespace import KEYS_COUNTED, SAMPLED, Sketch, shown
from pipeline.core.cache_policy import Policy
from pipeline.core.status import NamespaceStatus
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.errors import UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import Clock, Counted, Feed, cache_fixture, clock_fixture, feed_fixture  # noqa: F401


def space(cache: Cache, name: str) -> NamespaceStatus:
    return next(found for found in cache.namespaces() if found.name.endswith(name))


async def test_values_loaded_together_end_apart_and_none_lives_longer_than_it_may(
    cache: Cache, feed: Feed
) -> None:
    for key in range(50):
        await cache.get_or_load(key, Counted("v"), tags="t", ttl=100)
    await cache.get_or_load("exact", Counted("v"), tags="t", ttl=100, jitter=0)
    ends = [entry.expires_at - cache._clock() for entry in cache.core.store.entries.values()]
    assert ends.pop() == 100
    assert 90 <= min(ends) < 93
    assert 97 < max(ends) <= 100


@pytest.mark.parametrize("nothing", [None, [], {}, (), set()])
async def test_nothing_is_kept_for_a_time_of_its_own(cache: Cache, feed: Feed, clock: Clock, nothing: Any) -> None:
    loader = Counted(nothing)
    for passed, calls in ((0, 1), (0.5, 1), (0.6, 2)):
        clock.now += passed
        await feed.prove()
        assert await cache.get_or_load("k", loader, tags="t", ttl=100, negative_ttl=1, jitter=0) == nothing
        assert loader.calls == calls
    clock.now += 1.1
    await feed.prove()
    loader.value = [0]
    for passed in (0, 50):
        clock.now += passed
        await feed.prove()
        assert await cache.get_or_load("k", loader, tags="t", ttl=100, negative_ttl=1, jitter=0) == [0]
    assert loader.calls == 3


async def test_with_copies_nobody_sees_what_another_does_to_his(cache: Cache, feed: Feed) -> None:
    loader = Counted({"rows": [1]}, open_=False)
    asking = [asyncio.ensure_future(cache.get_or_load("k", loader, tags="t", copy="deep")) for _ in range(2)]
    await eventually(lambda: loader.calls)
    loader.gate.set()
    for value in await asyncio.gather(*asking):
        value["rows"].append(2)
    hit = await cache.get_or_load("k", loader, tags="t", copy="deep")
    assert hit == {"rows": [1]}
    hit["rows"].clear()
    assert await cache.get_or_load("k", loader, tags="t", copy="deep") == {"rows": [1]}
    assert (loader.calls, cache.status().hits_total) == (1, 2)
    shared = await cache.get_or_load("s", loader, tags="t")
    assert await cache.get_or_load("s", loader, tags="t") is shared


async def test_a_namespace_has_keys_bounds_and_figures_of_its_own(cache: Cache, feed: Feed) -> None:
    @cache.cached(tags="t:{n}", max_entries=3)
    async def square(n: int) -> int:
        return n * n

    for n in range(5):
        assert await square(n) == n * n
    assert await square(4) == 16
    await cache.get_or_load("k", Counted("one"), tags="u", namespace="n1", max_bytes=10_000)
    assert await cache.get_or_load("k", Counted("two"), tags="t", namespace="n2") == "two"
    assert await cache.get_or_load("k", Counted("plain"), tags="t") == "plain"
    await cache.get_or_load("large", Counted("x" * 20_000), tags="t", namespace="n1")
    await cache.invalidate("t:4")
    own = space(cache, "square")
    assert own.name.startswith("tests.flow.test_cache_namespaces.")
    assert (own.entries, own.hits_total, own.misses_total, own.max_entries) == (2, 1, 5, 3)
    assert own.gone == {"count": 2, "changed": 1}
    assert (space(cache, "n1").entries, space(cache, "n1").refused) == (1, {"unfit": 1})
    assert {status.name for status in cache.namespaces()} == {own.name, "n1", "n2", "values"}
    assert cache.core.store.bytes > sum(status.bytes for status in cache.namespaces()) > 0


async def test_bytes_of_a_namespace_are_bounded(cache: Cache, feed: Feed) -> None:
    for n in range(30):
        await cache.get_or_load(n, Counted("x" * 1000), tags="t", namespace="small", max_bytes=20_000)
        assert space(cache, "small").bytes <= 20_000
    assert space(cache, "small").gone["size"] >= 15
    for n in range(9):
        await cache.get_or_load(n, Counted("x" * 1000), tags="t", namespace="other")
    assert space(cache, "other").entries == 9
    await cache.get_or_load("last", Counted("x" * 1000), tags="t", namespace="other", max_entries=5)
    assert space(cache, "other").entries == 5


async def test_what_was_read_is_passed_over_once(cache: Cache, feed: Feed) -> None:
    async def load(key: str) -> None:
        await cache.get_or_load(key, Counted(key), tags="t", namespace="three", max_entries=3)

    for keys, left in (
        ("abcabd", "abd"),
        ("e", "bde"),
    ):  # a and b were read again; a is the oldest, and was spared
        for key in keys:
            await load(key)
        assert {key[2] for key in cache.core.store.entries} == set(left)  # type: ignore[index]


async def test_names_of_namespaces_do_not_grow_without_bound(cache: Cache, feed: Feed) -> None:
    for n in range(1_000):
        cache.core.namespace(Policy(namespace=f"user-{n}"))
    with pytest.raises(UsageError, match="1000 namespaces"):
        await cache.get_or_load("k", Counted("v"), tags="t", namespace="one-more")
    await cache.get_or_load("k", Counted("v"), tags="t", namespace="user-7")


async def test_figures_tell_what_ended_values_and_what_was_refused(cache: Cache, feed: Feed, clock: Clock) -> None:
    async def load(key: str, **options: Any) -> None:
        await cache.get_or_load(key, Counted("v"), tags=f"t:{key}", **options)

    await load("a", ttl=1)
    clock.now += 2
    await feed.prove()
    await load("a")
    await load("b")
    await cache.invalidate(prefix="t:b")
    loader = Counted("v", open_=False)
    asking = asyncio.ensure_future(cache.get_or_load("c", loader, tags="t:c"))
    await eventually(lambda: loader.calls)
    await cache.invalidate("t:c")
    loader.gate.set()
    await asking
    cache.on_flush("a gap")
    found = space(cache, "values")
    assert found.gone == {"expired": 1, "cleared": 1, "flushed": 1}
    assert found.refused == {"changed": 1}
    assert (found.entries, found.bytes) == (0, 0)


async def test_time_saved_is_hits_times_the_mean_load(cache: Cache, feed: Feed, clock: Clock) -> None:
    async def slow() -> str:
        clock.now += 0.25
        return "v"

    for _ in range(5):
        await cache.get_or_load("k", slow, tags="t")
    found = space(cache, "values")
    assert (found.mean_load_ms, found.saved_seconds) == (250, 1.0)
    assert cache.status().saved_seconds_total == 1.0


async def test_the_keys_that_are_asked_for_most_are_named(cache: Cache, feed: Feed) -> None:
    for n in range(20):
        for _ in range(1 + SAMPLED * (10 if n in {3, 17} else 1)):
            await cache.get_or_load(n, Counted("v"), tags="t")
    hottest = space(cache, "values").hottest
    assert {key.key for key in hottest[:2]} == {"3", "17"}
    assert 5 * SAMPLED <= hottest[0].hits <= 15 * SAMPLED


def test_keys_are_shown_as_they_were_written() -> None:
    assert shown((test_keys_are_shown_as_they_were_written, 1, "a")) == "1, 'a'"
    assert shown(("sql", "select 1\n  from t", (tuple, (7,)), None)).startswith("select 1 from t (")
    assert shown(("namespace", "n", "k")) == "'k'"
    assert shown(("a", 1)) == "('a', 1)"
    assert len(shown("x" * 1_000)) == 200


def test_a_sketch_is_bounded_and_never_counts_too_little() -> None:
    sketch = Sketch()
    for n in range(10_000):
        sketch.add(n % 1_000)
        if n % 4 == 0:
            sketch.add("hot")
    assert len(sketch.counts) == KEYS_COUNTED
    assert sketch.top(1)[0][0] == "hot"
    assert sketch.counts["hot"] >= 2_500


async def test_after_a_flush_few_loads_run_at_once_until_it_is_made_good(
    db: Database, feed: Feed, clock: Clock
) -> None:
    cache = Cache(prober=CacheDatabase(db), clock=clock, max_direct_loads=2)
    own = Feed(cache, feed.sql)
    await own.prove()
    await own.prove()
    ready = Counted("v")
    for n in range(4):
        await cache.get_or_load(n, ready, tags="t")
    cache.on_flush("a gap")
    await own.prove()
    await own.prove()
    assert cache.healthy().ok
    loader = Counted("v", open_=False)
    asking = [asyncio.ensure_future(cache.get_or_load(n, loader, tags="t")) for n in range(4)]
    await eventually(lambda: loader.calls == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert loader.calls == 2
    loader.gate.set()
    await asyncio.gather(*asking)
    loader.gate.clear()
    asking = [asyncio.ensure_future(cache.get_or_load(-n, loader, tags="t")) for n in range(1, 5)]
    await eventually(lambda: loader.calls == 8, why="as many were loaded as the flush forgot")
    loader.gate.set()
    await asyncio.gather(*asking)
