"""`pgreflex jobs`: what it lists and shows, and what it does to one job or to thousands."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from pipeline.cli.jobs import jobs
from pipeline.core.job import Outcome
from tests.cli.conftest import PROGRAM, ROOT, Cli, assert_explained, clean_environment
from tests.conftest import eventually, with_database
from tests.jobs_kit import claim, job_store, lose

Process = Callable[..., Awaitable[asyncio.subprocess.Process]]

FAILED = """
    insert into pipeline.job_archive (
        id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, finished_at, error
    )
    select nextval('pipeline.job_id_seq'), 'mail', 0, 'shop.mail', '{"to": 7}', 'failed', 5, 5, now(), now(),
        now(), 'no route to host ' || n
    from generate_series(1, $1::int) n
"""


async def failed(sql: asyncpg.Connection, count: int) -> list[int]:
    await sql.execute("select pipeline.maintain_archive()")
    await sql.execute(FAILED, count)
    return [row["id"] for row in await sql.fetch("select id from pipeline.job_archive order by id")]


async def add(sql: asyncpg.Connection, task: str = "t", args: str = "{}", **options: object) -> int:
    named = "".join(f", {name} => ${n}" for n, name in enumerate(options, 3))
    return int(await sql.fetchval(f"select pipeline.enqueue($1, $2::jsonb{named})", task, args, *options.values()))


async def listed(cli: Cli, dsn: str, *more: str) -> list[int]:
    result = await cli("jobs", "list", "--json", "-d", dsn, *more)
    assert result.status == 0, result
    return [job["id"] for job in json.loads(result.out)]


@pytest.mark.parametrize("verb", list(jobs.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("jobs", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex jobs {verb}" in " ".join(result.out.split())


async def test_jobs_of_every_state_are_listed_newest_first(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    assert "There is no job" in (await cli("jobs", "list", "-d", dsn)).err
    made = {}
    async with job_store(dsn) as store:
        worker = await store.register("w", ["default"])
        for state in ("finished", "failed", "running"):
            made[state] = await add(sql)
        first, second, _third = await claim(store, worker)
        await store.write(worker, [Outcome(first, "finish"), Outcome(second, "fail", error="boom [x]\nmore")])
        for state in ("ready", "cancelled", "expired"):
            made[state] = await add(sql, key="customer:7")
        made["delayed"] = await sql.fetchval("select pipeline.enqueue('t', run_at => now() + interval '1 h')")
        made["blocked"] = await add(sql, queue="mail")
        await sql.execute("update pipeline.job set needs = 1, pos = null where id = $1", made["blocked"])
        await sql.execute("select pipeline.cancel_jobs(array[$1::bigint])", made["cancelled"])
        await sql.execute("select pipeline.end_jobs(array[$1::bigint], 'expired', 'late')", made["expired"])

        assert await listed(cli, dsn) == sorted(made.values(), reverse=True)
        for state, job in made.items():
            assert await listed(cli, dsn, "--where", f"state:{state}") == [job], state
        assert await listed(cli, dsn, "--where", "queue:m*l") == [made["blocked"]]
        assert await listed(cli, dsn, "--where", "error:BOOM") == [made["failed"]]
        assert await listed(cli, dsn, "--where", "key:customer:*") == [
            made["expired"], made["cancelled"], made["ready"]
        ]  # fmt: skip
        assert await listed(cli, dsn, "--where", "task:shop.*") == []
        assert await listed(cli, dsn, "--where", "since:0") == []
        assert len(await listed(cli, dsn, "--where", "since:1h")) == 8
        told = await cli("jobs", "list", "-d", dsn, "--where", "state:failed")
        assert told.out.splitlines()[1].split()[:5] == [str(made["failed"]), "failed", "t", "default", "1/5"]
        assert told.out.splitlines()[1].endswith("boom [x]")
        assert "No job matches" in (await cli("jobs", "list", "-d", dsn, "--where", "task:x")).err


async def test_pages_meet_without_a_gap(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    old = await failed(sql, 30)
    live = [await add(sql) for _ in range(3)]
    await sql.execute("alter sequence pipeline.job_id_seq restart with 4000000")  # a range without any job
    newest = await add(sql)
    seen: list[int] = []
    while page := await listed(cli, dsn, "--limit", "7", *(("--after", str(seen[-1])) if seen else ())):
        seen += page
    assert seen == [newest, *live[::-1], *old[::-1]]
    assert f"--after {seen[6]}" in (await cli("jobs", "list", "-d", dsn, "--limit", "7")).err


async def test_a_job_is_shown_with_all_that_is_known(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("insert into pipeline.task (name, redact) values ('t', '{card.number,note}')")
    job = await add(sql, args='{"card": {"number": 4111, "name": "Ada"}, "password": "x", "note": 1}')
    async with job_store(dsn) as store:
        worker = await store.register("host:1", ["default"])
        [held] = await claim(store, worker)
        await sql.execute(
            "insert into pipeline.job_state (job, done, total, note, at) values ($1, 3, 9, 'rows', now())", job
        )
        await sql.execute("insert into pipeline.job_log values ($1, 1, now(), 'info', 'half way')", job)
        shown = (await cli("jobs", "show", str(job), "-d", dsn)).out
        facts = dict(re.findall(r"^(\S.*?)  +(.*)$", shown, re.MULTILINE))
        assert (
            facts["args"]
            == '{"card":{"name":"Ada","number":"[redacted]"},"note":"[redacted]","password":"********"}'
        )
        assert facts["state"] == "running"
        assert facts["progress"] == "3 of 9  rows"
        assert facts["worker"].startswith(f"host:1, lease {held.lease}, seen ")
        assert shown.splitlines()[-1].split()[-4:] == ["1", "info", "half", "way"]
        assert "4111" not in (await cli("jobs", "list", "--json", "-d", dsn)).out
        await store.write(
            worker, [Outcome(held, "finish", result='{"sent": 2}', began=0.0, ms=1500)], [held.lease]
        )
    told = json.loads((await cli("jobs", "show", str(job), "--json", "-d", dsn)).out)
    assert (told["state"], told["result"], told["ms"], told["worker"]) == ("finished", {"sent": 2}, 1500, "host:1")
    assert told["log"][0]["message"] == "half way"
    assert (await cli("jobs", "wait", str(job), "-d", dsn)).out == '{"sent":2}\n'


async def test_a_sealed_job_is_shown_without_its_arguments(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    job = await add(sql, args='{"$sealed": "k1:abc"}')
    assert re.search(r"^args +\[sealed\]$", (await cli("jobs", "show", str(job), "-d", dsn)).out, re.MULTILINE)


async def test_waiting_ends_with_the_job(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    job = await add(sql)
    late = await cli("jobs", "wait", str(job), "--timeout", "0", "-d", dsn)
    assert_explained(late, 1, "busy", f"job {job} has not ended within 0s")
    waiting = asyncio.create_task(cli("jobs", "wait", str(job), "-d", dsn))
    await asyncio.sleep(0)
    await sql.execute("select pipeline.cancel_jobs(array[$1::bigint], 'not now')", job)
    assert_explained(await waiting, 1, "job-failed", "has cancelled: cancelled: not now", f"jobs show {job}")
    assert_explained(await cli("jobs", "wait", "999", "-d", dsn), 1, "task", "there is no job 999")


async def test_a_log_is_followed_until_the_job_has_ended(
    process: Process, dsn: str, sql: asyncpg.Connection
) -> None:
    job = await add(sql)
    line = "insert into pipeline.job_log values ($1, 1, clock_timestamp(), 'warning', $2)"
    await sql.execute(line, job, "first")
    child = await process("jobs", "log", str(job), "--follow", "--json", "-d", dsn)
    assert child.stdout is not None
    assert json.loads(await asyncio.wait_for(child.stdout.readline(), 20))["message"] == "first"
    await sql.execute(line, job, "second")
    assert json.loads(await asyncio.wait_for(child.stdout.readline(), 20))["message"] == "second"
    await sql.execute("select pipeline.cancel_jobs(array[$1::bigint])", job)
    assert await asyncio.wait_for(child.wait(), 20) == 0


async def test_jobs_are_retried_and_cancelled_by_their_ids(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    [one, two] = await failed(sql, 2)
    assert (await cli("jobs", "retry", str(one), "-d", dsn)).out == f"retried  {one}\n"
    row = await sql.fetchrow("select id, attempt, args from pipeline.job")
    assert row is not None
    assert (row["id"], row["attempt"], json.loads(row["args"])) == (one, 1, {"to": 7})
    mixed = await cli("jobs", "retry", str(one), str(two), "999", "-d", dsn)
    assert (mixed.status, mixed.out) == (1, f"retried  {two}\n")
    assert f"job {one} is ready; there is no job 999" in " ".join(mixed.err.split())
    done = await cli("jobs", "cancel", str(one), "--reason", "by hand", "--json", "-d", dsn)
    assert json.loads(done.out) == {"cancelled": [one]}
    assert await sql.fetchval("select error from pipeline.job_archive where id = $1", one) == "cancelled: by hand"


async def test_an_id_that_is_wrong_or_has_ended_is_explained(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    [one] = await failed(sql, 1)
    assert_explained(
        await cli("jobs", "cancel", str(one), "-d", dsn), 1, "task", f"job {one} has failed", "blocked, delayed"
    )
    for verb in (["show"], ["cancel"], ["retry"], ["log"]):
        for wrong in ("999", str(2**70)):
            assert_explained(await cli("jobs", *verb, wrong, "-d", dsn), 1, "task", f"there is no job {wrong}")
    assert_explained(await cli("jobs", "show", "x", "-d", dsn), 2, "usage", "x")
    many = await cli("jobs", "cancel", *map(str, range(101, 120)), "-d", dsn)
    assert_explained(many, 1, "task", "there is no job 105; and 14 more jobs")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["list", "--where", "stat:failed"], "there is no field 'stat'"),
        (["list", "--where", "state:dead"], "there is no state 'dead'"),
        (["retry"], "name jobs by their ids, or by --where"),
        (["retry", "1", "--where", "queue:a"], "not both"),
        (["cancel", "--where", " "], "an empty filter"),
        (["cancel", "--where", "state:failed"], "jobs that are failed cannot be cancelled"),
        (["retry", "--where", "state:running"], "jobs that are running cannot be retried"),
    ],
)
async def test_mistakes_are_explained_before_the_database_is_asked(cli: Cli, call: list[str], words: str) -> None:
    assert_explained(await cli("jobs", *call, "-d", "postgresql://127.0.0.1:1/none"), 2, "usage", words)


async def test_five_thousand_jobs_are_retried_in_batches(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    ids = await failed(sql, 5_000)
    other = await add(sql, queue="other")
    result = await cli("jobs", "retry", "--where", "queue:mail error:route", "-d", dsn)
    assert (result.status, result.out, result.err) == (0, "retried  5000\n", "5,000 jobs match.\n"), result
    assert await sql.fetchval("select count(*) from pipeline.job where id = any($1)", ids) == 5_000
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 0
    assert await sql.fetchval("select count(distinct xmin::text) from pipeline.job where id = any($1)", ids) == 5
    assert await sql.fetchval("select attempt from pipeline.job where id = $1", other) == 1
    cancelled = await cli("jobs", "cancel", "--where", "queue:mail", "--json", "-d", dsn)
    assert json.loads(cancelled.out) == {"matched": 5_000, "cancelled": 5_000}
    assert await sql.fetchval("select array_agg(id) from pipeline.job") == [other]
    assert (await cli("jobs", "retry", "--where", "queue:nobody", "-d", dsn)).err == "No job matches.\n"
    nothing = await cli("jobs", "retry", "--where", "queue:mail", "--json", "-d", dsn)
    assert json.loads(nothing.out) == {"matched": 0, "retried": 0}, "cancelled ones are not meant unless named"


async def test_an_interrupt_says_how_far_it_came(process: Process, dsn: str, sql: asyncpg.Connection) -> None:
    ids = await failed(sql, 5_000)
    holder = sql.transaction()
    await holder.start()
    await sql.execute("select from pipeline.job_archive where id = $1 for update", ids[-2_500])
    child = await process("jobs", "retry", "--where", "state:failed", "-d", dsn)
    looker = await asyncpg.connect(dsn)
    try:
        blocked = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        await eventually(lambda: looker.fetchval(blocked), within=20, why="the third batch")
        child.send_signal(signal.SIGINT)
        _out, err = await asyncio.wait_for(child.communicate(), 20)
        await holder.rollback()
        assert child.returncode == 130, err
        assert b"Interrupted: 2,000 of 5,000 were retried" in err
        assert b"Traceback" not in err
        assert await looker.fetchval("select count(*) from pipeline.job") == 2_000
    finally:
        await looker.close()


async def test_a_terminal_is_asked(dsn: str, sql: asyncpg.Connection) -> None:
    await failed(sql, 3)

    async def answer(text: bytes) -> tuple[int, bytes]:
        ours, theirs = pty.openpty()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, "jobs", "retry", "--where", "state:failed", "-d", dsn,
            stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=clean_environment(PYTHONPATH=str(ROOT)),
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, text)
        out, err = await asyncio.wait_for(child.communicate(), 30)
        os.close(ours)
        assert b"3 jobs match." in err
        return child.returncode or 0, out

    assert await answer(b"n\n") == (1, b"")
    assert await sql.fetchval("select count(*) from pipeline.job") == 0
    assert await answer(b"y\n") == (0, b"retried  3\n")


async def test_a_role_without_rights_is_told_so(
    cli: Cli, dsn: str, server_dsn: str, sql: asyncpg.Connection
) -> None:
    role = f"app_{uuid.uuid4().hex[:12]}"
    job = await add(sql)
    await sql.execute(f"create role {role} login password 'x'; grant usage on schema pipeline to {role}")
    try:
        name = await sql.fetchval("select current_database()")
        theirs = with_database(server_dsn, name)
        scheme, _, rest = theirs.partition("://")
        theirs = f"{scheme}://{role}:x@{rest.rpartition('@')[2]}"
        for call in (
            ["jobs", "list"], ["jobs", "show", str(job)], ["jobs", "cancel", str(job)],
            ["jobs", "retry", "--where", "state:failed"], ["queues", "list"], ["queues", "pause", "default"],
            ["workers"],
        ):  # fmt: skip
            assert_explained(await cli(*call, "-d", theirs), 1, "permission-missing", "permission denied")
        added = await cli("enqueue", "t", "-d", theirs)
        assert added.status == 0, added
    finally:
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_workers_are_listed_with_what_they_hold(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    assert "No worker has run" in (await cli("workers", "-d", dsn)).err
    async with job_store(dsn) as store:
        busy = await store.register("b:2", ["mail", "default"])
        gone = await store.register("a:1", ["*"])
        for _ in range(2):
            await add(sql)
        held = await claim(store, busy)
        await store.write(busy, [Outcome(held[0], "finish")])
        await lose(sql, gone)
        out = (await cli("workers", "-d", dsn)).out.splitlines()
        assert out[0].split() == ["id", "name", "state", "queues", "jobs", "leases", "since", "seen"]
        assert out[1].split()[:7] == [str(busy), "b:2", "alive", "mail", "default", "1", "1"]
        assert out[2].split()[:6] == [str(gone), "a:1", "silent", "*", "0", "0"]
        told = json.loads((await cli("workers", "--json", "-d", dsn)).out)
        assert [(one["id"], one["alive"], one["jobs"]) for one in told] == [(busy, True, 1), (gone, False, 0)]


async def test_enqueue_takes_every_option(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    call = [
        "enqueue", "t", "--queue", "mail", "--at", "2099-01-01T01:00+01:00", "--max-attempts", "2",
        "--timeout", "30s", "--key", "customer:7", "--expires", "1h", "--unique-key", "u", "--unique-for", "1d",
        "--unique-states", "delayed,failed", "--on-clash", "replace", "-d", dsn,
    ]  # fmt: skip
    first = (await cli(*call)).out
    row = await sql.fetchrow("select * from pipeline.job")
    assert row is not None
    assert (row["queue"], row["max_attempts"], row["key"], row["timeout"].seconds) == ("mail", 2, "customer:7", 30)
    assert row["run_at"].isoformat() == "2099-01-01T00:00:00+00:00"
    assert (row["expires_at"] - row["run_at"]).seconds == 3600
    assert (await cli(*call)).out == first
    both = await cli("enqueue", "t", "--in", "5m", "--at", "2099-01-01", "-d", dsn)
    assert_explained(both, 2, "usage", "--in and --at")
    assert_explained(await cli("enqueue", "t", "--key", "x" * 300, "-d", dsn), 2, "usage", "200 characters")
    wrong = await cli("enqueue", "t", "--unique-key", "u", "--unique-states", "waiting", "-d", dsn)
    assert_explained(wrong, 2, "usage", "'waiting' is no state; the states are blocked, delayed")


async def test_what_enqueue_is_not_told_comes_from_the_task(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("insert into pipeline.task (name, queue, priority, max_attempts) values ('t', 'mail', 3, 9)")
    await cli("enqueue", "t", "-d", dsn)
    row = await sql.fetchrow("select queue, priority, max_attempts from pipeline.job")
    assert row is not None
    assert tuple(row) == ("mail", 3, 9)


async def test_the_commands_of_the_page_run_as_they_are_printed(
    cli: Cli, dsn: str, sql: asyncpg.Connection
) -> None:
    page = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^## Operating\n.*?^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    await sql.execute("alter sequence pipeline.job_id_seq restart with 42")
    assert await failed(sql, 1) == [42]
    for line in block.splitlines():
        result = await cli(*shlex.split(line)[1:], "-d", dsn)
        assert result.status == 0, (line, result)
    row = await sql.fetchrow("select * from pipeline.queue")
    assert row is not None
    assert (row["concurrency"], row["rate"], row["slots"], row["weight"], row["state"]) == (
        5,
        100,
        20,
        3,
        "draining",
    )
    assert await sql.fetchval("select error from pipeline.job_archive where id = 42") == "cancelled: sent by hand"
