"""`pipeline.instrument`, from the call to the figures in the database."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine

import pipeline
from handlers import query_texts
from pipeline.app import instrumenting
from pipeline.app.instrumenting import observer
from pipeline.app.timing import recorder
from pipeline.core.fingerprint import fingerprint
from tests.conftest import eventually

COUNTED = """
select coalesce(sum(part.count), 0) from pipeline.timing_series as series,
    pipeline.timing_parts(array[series.id], now() - interval '1 hour', now() + interval '1 minute', 60) as part
where series.name = 'query' and series.labels @> jsonb_build_object('fingerprint', $1::text)
"""


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """The observer is the process's own: what one test leaves in it is no business of the next."""
    recorder.reset()
    observer.reset()
    yield
    recorder.reset()
    observer.reset()


async def test_what_an_instrumented_pool_ran_is_in_the_database_with_its_texts(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with pipeline.Client(dsn, pump=False, self_check=False) as client:
        async with pipeline.create_pool(dsn, min_size=1, max_size=2, instrument=True) as pool:
            for n in range(7):
                with pipeline.labels(endpoint="/orders"):
                    assert await pool.fetchval("select $1::int + 4711", n) == n + 4711
            with psycopg.connect(dsn) as connection:
                assert pipeline.instrument(connection) is connection
                connection.execute("select 1 + 4711")
                connection.commit()
                pipeline.uninstrument(connection)
                connection.execute("select 2 + 4711 as unseen")
        await client.timings.flush(everything=True)
        wanted = fingerprint("select $1::int + 4711")

        async def written() -> bool:
            return (
                await sql.fetchval("select text from pipeline.query where fingerprint = $1", wanted.hex)
                is not None
            )

        await eventually(written)
        assert await sql.fetchval(COUNTED, wanted.hex) == 7
        assert await sql.fetchval(COUNTED, fingerprint("select 1 + 4711").hex) == 1
        assert await sql.fetchval(COUNTED, fingerprint("select 2 + 4711 as unseen").hex) == 0
        labels = await sql.fetchval(
            "select labels->>'endpoint' from pipeline.timing_series where labels->>'fingerprint' = $1", wanted.hex
        )
        assert labels == "/orders"
        assert await sql.fetchval("select count(*) from pipeline.timing_series where name = 'transaction'") == 1


async def test_of_several_clients_the_first_reads_and_then_the_next(dsn: str) -> None:
    slow: list[str] = []
    async with pipeline.Client(dsn, pump=False, self_check=False, slow_ms=5) as one:
        async with pipeline.Client(dsn, pump=False, self_check=False, slow_ms=7) as other:
            assert instrumenting.reads(one.texts)
            assert not instrumenting.reads(other.texts)
            assert observer.slow_ms == 5
            instrumenting.leave(one.texts)
            assert instrumenting.reads(other.texts)
            assert observer.slow_ms == 7
        instrumenting.enter(one.texts, slow_ms=9, seen=lambda text, found, ms: slow.append(found.text))
        observer.query("select 8", 0.008, rows=1, error=None)
        observer.query("select a", 0.010, rows=1, error=None)
        assert slow == ["select a"]
    assert observer.slow is None


async def test_what_is_of_no_known_driver_is_refused_and_the_health_says_so(dsn: str) -> None:
    engine = create_engine("sqlite://")
    assert pipeline.instrument(engine) is engine
    thing = object()
    assert pipeline.instrument(thing) is thing
    assert pipeline.uninstrument(thing) is thing
    assert observer.refusals == {"builtins.object": "its driver is not known"}
    async with pipeline.Client(dsn, pump=False, self_check=False) as client:
        assert client.texts.healthy().detail == "not timed: builtins.object: its driver is not known"
    pipeline.uninstrument(engine)
    engine.dispose()


async def test_a_driver_that_cannot_be_read_at_all_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(instrumenting._DRIVERS, "psycopg", "pipeline.db.instrument_nothing")
    with psycopg.connect(dsn) as connection:
        assert pipeline.uninstrument(pipeline.instrument(connection)) is connection
    assert observer.refusals["psycopg.Connection"].startswith("ModuleNotFoundError")


async def test_what_the_database_does_not_take_is_written_later(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_texts, "BATCH", 1)
    async with pipeline.Client(dsn, pump=False, self_check=False) as client:
        await sql.execute("alter table pipeline.query rename to elsewhere")
        for text in ("select somewhat", "select more"):
            observer.query(text, 0.001, rows=1, error=None)
        await eventually(lambda: not client.texts.healthy().ok)
        await sql.execute("alter table pipeline.elsewhere rename to query")
        await eventually(lambda: client.texts.healthy().ok)
    texts = [row["text"] for row in await sql.fetch("select text from pipeline.query")]
    assert sorted(texts) == ["select more", "select somewhat"]
