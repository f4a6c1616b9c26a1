"""Values that are no longer good: who gets them, how they are flagged, what replaces them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.cache import Cache
from pipeline.core.cache_policy import Options
from pipeline.errors import UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import Clock, Counted, Feed, cache_fixture, clock_fixture, feed_fixture  # noqa: F401

SOFT: Options = {"stale_while_revalidate": "30s"}


async def read(cache: Cache, loader: Any, **options: Any) -> tuple[Any, bool]:
    """The value, and whether it was flagged as stale."""
    async with cache.reads() as seen:
        value = await cache.get_or_load("k", loader, tags="orders:1", **options)
    return value, seen.stale


async def test_a_changed_value_is_served_flagged_while_one_load_replaces_it(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    loader = Counted("old")
    assert await read(cache, loader, **SOFT) == ("old", False)
    feed.change(2**40, "1")
    loader.value, loader.gate = "new", asyncio.Event()
    assert [await read(cache, loader, **SOFT) for _ in range(3)] == [("old", True)] * 3
    await eventually(lambda: loader.calls == 2)
    loader.gate.set()
    await eventually(lambda: cache.core.store.entries["k"].value == "new")
    assert await read(cache, loader, **SOFT) == ("new", False)
    assert loader.calls == 2
    status = cache.status()
    assert (status.stale_total, status.hits_total, status.misses_total, status.invalidations_total) == (3, 1, 1, 1)


async def test_who_did_not_opt_in_waits_for_the_new_value(cache: Cache, feed: Feed) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    feed.change(2**40, "1")
    loader.value = "new"
    assert await read(cache, loader) == ("new", False)


async def test_after_its_time_a_stale_value_is_gone(cache: Cache, feed: Feed, clock: Clock) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    feed.change(2**40, "1")
    clock.now += 31
    await feed.prove()
    loader.value = "new"
    assert await read(cache, loader, **SOFT) == ("new", False)
    assert cache.namespaces()[0].gone == {"changed": 1}


async def test_a_value_past_its_time_to_live_is_served_flagged_and_refreshed(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    loader = Counted("old")
    await read(cache, loader, ttl=10, **SOFT)
    clock.now += 11
    await feed.prove()
    loader.value = "new"
    assert await read(cache, loader, ttl=10, **SOFT) == ("old", True)
    await eventually(lambda: cache.core.read("k", clock()))
    assert await read(cache, loader, ttl=10, **SOFT) == ("new", False)


async def test_while_nothing_is_proved_a_value_is_served_flagged_for_its_time(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    clock.now += 20
    assert await read(cache, loader, **SOFT) == ("old", True)
    await eventually(lambda: not len(cache._loads))
    cache.on_flush("a gap")
    assert await read(cache, loader, **SOFT) == ("old", True)
    clock.now += 40
    loader.value = "new"
    assert await read(cache, loader, **SOFT) == ("new", False)


async def test_clear_leaves_nothing_not_even_for_those_who_take_it_stale(cache: Cache, feed: Feed) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    await cache.clear()
    loader.value = "new"
    assert await read(cache, loader, **SOFT) == ("new", False)


async def test_a_refresh_that_fails_is_tried_again_after_a_pause(cache: Cache, feed: Feed, clock: Clock) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    feed.change(2**40, "1")
    loader.value = LookupError("down")
    assert await read(cache, loader, **SOFT) == ("old", True)
    await eventually(lambda: loader.calls == 2 and not len(cache._loads))
    for _ in range(10):  # what follows the end of a task runs after it, and what must not run would by now
        await asyncio.sleep(0)
        assert await read(cache, loader, **SOFT) == ("old", True)
    assert loader.calls == 2
    clock.now += 1.0
    assert await read(cache, loader, **SOFT) == ("old", True)
    await eventually(lambda: loader.calls == 3)


async def test_a_load_that_fails_gives_the_old_value_to_those_who_opted_in(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    loader = Counted("old")
    await read(cache, loader, stale_if_error="1m")
    feed.change(2**40, "1")
    loader.value = LookupError("down")
    assert await read(cache, loader, stale_if_error="1m") == ("old", True)
    with pytest.raises(LookupError):
        await read(cache, loader)
    clock.now += 61
    with pytest.raises(LookupError):
        await read(cache, loader, stale_if_error="1m")


async def test_no_value_is_made_of_a_stale_part(cache: Cache, feed: Feed) -> None:
    part = Counted("old")

    async def whole() -> Any:
        return await cache.get_or_load(
            "k", part, tags="orders:1", stale_while_revalidate="30s", stale_if_error="30s"
        )

    await whole()
    feed.change(2**40, "1")
    part.value = "new"
    assert await cache.get_or_load("whole", whole, tags="pages") == "new"
    feed.change(2**40 + 1, "1")
    part.value = LookupError("down")
    with pytest.raises(LookupError):
        await cache.get_or_load("whole", whole, tags="pages")


async def test_reads_tells_what_was_read_also_inside_other_loads_and_blocks(cache: Cache, feed: Feed) -> None:
    async def page() -> Any:
        return await cache.get_or_load("k", Counted("v"), tags="orders:1", ttl=30, jitter=0)

    async with cache.reads() as outer:
        async with cache.reads() as inner:
            await cache.get_or_load("page", page, tags="pages")
        await cache.get_or_load("other", Counted("v"), tags="other")
        async with cache.bypass():
            await cache.get_or_load("past", Counted("v"), tags="past")
    assert (inner.tags, inner.stale, inner.expires_at) == ({"orders:1", "pages"}, False, cache._clock() + 30)
    assert outer.tags == {"orders:1", "pages", "other", "past"}
    async with cache.reads() as again:
        await cache.get_or_load("page", page, tags="pages")
    assert again.tags == {"orders:1", "pages"}


async def test_a_read_shortly_before_the_end_refreshes_early_by_chance(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    loader = Counted("old")

    async def slow() -> Any:
        value = await loader()
        clock.now += 0.5
        return value

    await read(cache, slow, ttl=100, jitter=0, early=1.0)
    clock.now += 99  # half a second is left
    await feed.prove()
    loader.value = "new"
    for draw, value in ((0.5, "old"), (0.9, "old")):  # 0.35 s, then 1.15 s
        assert loader.calls == 1
        cache.core._rng = lambda draw=draw: draw
        assert await cache.get_or_load("k", slow, tags="orders:1", ttl=100, jitter=0, early=1.0) == value
        await asyncio.sleep(0)
    await eventually(lambda: loader.calls == 2 and not len(cache._loads))
    assert await read(cache, slow, ttl=100, jitter=0, early=1.0) == ("new", False)


async def test_a_refresh_goes_on_when_one_who_joined_it_gives_up(cache: Cache, feed: Feed) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    feed.change(2**40, "1")
    loader.value, loader.gate = "new", asyncio.Event()
    assert await read(cache, loader, **SOFT) == ("old", True)
    strict = asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders:1"))
    await eventually(lambda: cache.status().misses_total == 2)
    strict.cancel()
    await asyncio.wait([strict])
    loader.gate.set()
    await eventually(lambda: not len(cache._loads))
    assert await read(cache, loader, **SOFT) == ("new", False)
    assert loader.calls == 2


async def test_what_runs_in_the_background_ends_with_the_cache(cache: Cache, feed: Feed) -> None:
    loader = Counted("old")
    await read(cache, loader, **SOFT)
    feed.change(2**40, "1")
    loader.gate = asyncio.Event()
    await read(cache, loader, **SOFT)
    await eventually(lambda: loader.calls == 2)
    await cache.stop()
    assert not len(cache._loads)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jitter": 2}, "jitter"),
        ({"early": -1}, "early"),
        ({"copy": "some"}, "copy"),
        ({"ttl": "soon"}, "time to live"),
        ({"stale_if_eror": 1}, "no option stale_if_eror"),
        ({"max_bytes": 10}, "bounds without a namespace"),
    ],
)
async def test_mistakes_in_options_are_told(cache: Cache, options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await cache.get_or_load("k", Counted("v"), tags="t", **options)
