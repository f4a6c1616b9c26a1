"""`pgreflex cache`: values are dropped in every process, and the figures are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

import pipeline
from pipeline.cli import cache as verbs
from pipeline.core.status import CacheStatus, NamespaceFigures, Status
from tests.cli.conftest import Cli, assert_explained
from tests.conftest import eventually

TELLS = Status(
    version="0",
    process="p",
    at=0.0,
    started_at=0.0,
    ready=True,
    draining=False,
    cache=CacheStatus(
        entries=3,
        bytes=1400,
        max_bytes=5000,
        hit_ratio=0.975,
        age_bound_seconds=0.25,
        checks_total=1200,
        fresh_within_1s=1200 / 1201,
        namespaces=(
            NamespaceFigures("shop.load", 3, 1400, 5000, 20, saved_seconds_total=90.0),
            NamespaceFigures(""),
        ),
    ),
)


@pytest.mark.parametrize("verb", list(verbs.cache.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("cache", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex cache {verb}" in " ".join(result.out.split())


async def test_values_are_dropped_by_tag_by_prefix_and_all_of_them(cli: Cli, dsn: str) -> None:
    async with pipeline.connect(dsn) as client:
        cache = client.cache
        await eventually(lambda: cache.healthy().ok, within=20)

        async def load() -> str:
            return "v"

        async def kept() -> set[Any]:
            return {entry.key for entry in cache.core.store.entries.values()}

        for key, tag in (("a", "orders:7"), ("b", "orders:8"), ("c", "report:1"), ("d", "other")):
            await cache.get_or_load(key, load, tags=tag)
        assert await kept() == {"a", "b", "c", "d"}
        result = await cli("cache", "invalidate", "orders:7", "--prefix", "rep", "-d", dsn)
        assert (result.status, result.out) == (0, "invalidated: orders:7, rep...\n")

        async def left(*keys: str) -> bool:
            return await kept() == set(keys)

        await eventually(lambda: left("b", "d"), within=20)
        result = await cli("cache", "clear", "--json", "-d", dsn)
        assert json.loads(result.out) == {"tags": [], "prefix": ""}
        await eventually(left, within=20)


async def test_dropping_nothing_is_a_mistake(cli: Cli, dsn: str) -> None:
    assert_explained(await cli("cache", "invalidate", "-d", dsn), 2, "usage", "nothing is named")


async def test_the_status_of_the_caches_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "told", lambda _session: TELLS)
    result = await cli("cache", "status")
    assert result.out.splitlines()[:4] == [
        "hit ratio         97.5% over the last minute",
        "age bound         0.25 s",
        "fresh within 1 s  99.9 %, of 1,200 checked hits; 0 were wrong",
        "held              3 entries, 1,400 of 5,000 bytes",
    ]
    assert [line.split() for line in result.out.splitlines()[6:]] == [
        ["shop.load", "5,000", "20", "3", "1,400", "1m", "30s"],
        ["all", "others", "0", "0", "0", "0", "0s"],
    ]
    assert json.loads((await cli("cache", "status", "--json")).out)["checks_total"] == 1200
    monkeypatch.setattr(verbs, "told", lambda _session: Status("0", "p", 0.0, 0.0, True, False))
    assert "No process reports a cache" in (await cli("cache", "status")).err
