"""Random lives of one instance, in Postgres, judged by whoever is there: begun anew, twice at once, or not at all.

The model is the table of pipeline/core/alert.py told in another way. Whatever happens between two judgements must
change nothing of it.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import asyncpg
import pytest

from pipeline.db.alert_judge import AlertJudge
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed
from tests.alert_kit import NOON
from tests.time_kit import stand_at

EXAMPLES, WINDOWS = 12, 14
WORDS = {"bad": 9, "good": 0, "nodata": None, "error": 0}


class Model:
    """What the past adds up to. history: (state before, state after, episode)."""

    def __init__(self, need: int, keep: int, hold: int) -> None:
        self.need, self.keep, self.hold = need, keep, hold
        self.state = "inactive"
        self.bad = self.good = self.silent = self.episode = 0
        self.history: list[tuple[str, str, int]] = []

    def judge(self, verdict: str, end: int) -> None:
        before = self.state
        if verdict == "error":
            return
        if before in ("inactive", "resolved"):
            if verdict != "bad":
                return
            self.bad, self.good, self.silent, self.episode = 1, 0, 0, end
            self.state = "firing" if self.need == 1 else "pending"
        elif before == "pending":
            if verdict == "good":
                self.state = "inactive"
            elif verdict == "nodata":
                self.silent += 1
                self.state = "inactive" if self.silent >= self.hold else "pending"
            else:
                self.bad, self.silent = self.bad + 1, 0
                self.state = "firing" if self.bad >= self.need else "pending"
        elif verdict == "bad":
            self.good = 0
        elif verdict == "good":
            self.good += 1
            self.state = "resolved" if self.good >= self.keep else "firing"
        if self.state != before:
            self.history.append((before, self.state, self.episode if self.state != "inactive" else 0))


async def judge_somehow(draw: random.Random, databases: list[Database], rule: int) -> None:
    """One evaluator, or two of different processes at once, or one after the other."""

    async def one(database: Database) -> None:
        with suppress(QueryFailed):  # noted with the rule; the verdict is `error`
            await AlertJudge(database).judge(rule)

    how = draw.choice(["one", "other", "both", "again"])
    if how == "both":
        await asyncio.gather(*(one(database) for database in databases))
    elif how == "again":
        await one(databases[0])
        await one(databases[1])
    await one(databases[how == "other"])


@pytest.mark.parametrize("seed", [1])
async def test_a_life_is_that_of_the_model_however_it_is_judged(
    seed: int, dsn: str, sql: asyncpg.Connection
) -> None:
    draw = random.Random(seed)
    await sql.execute("delete from pipeline.alert_rule")
    await sql.execute("create table probe (life int primary key, value int, ok int)")
    await stand_at(sql, NOON)
    lives: dict[int, tuple[int, Model]] = {}
    for life in range(EXAMPLES):
        need, keep, hold = (draw.randint(1, 3) for _ in range(3))
        rule = await sql.fetchval(
            "select pipeline.alert_rule_set($1, query => $2, threshold => 5, over => '5 s', need => $3,"
            " keep_firing => $4, hold_max => $5)",
            f"life {life}",
            f"select life, 1 / ok * value as value from probe where life = {life}",
            need,
            keep,
            hold,
        )
        lives[life] = (rule, Model(need, keep, hold))
        await sql.execute("insert into probe values ($1, 0, 1)", life)
    for window in range(1, WINDOWS + 1):
        await stand_at(sql, NOON + 5 * window)
        async with Database(dsn) as first, Database(dsn) as second:
            for life, (rule, model) in lives.items():
                verdict = draw.choice(["bad", "bad", "bad", "good", "good", "nodata", "error"])
                await sql.execute(
                    "update probe set value = $2, ok = $3 where life = $1",
                    life,
                    WORDS[verdict],
                    int(verdict != "error"),
                )
                if draw.random() < 0.2:
                    continue  # nobody is there: the window counts neither for nor against
                await judge_somehow(draw, [first, second], rule)
                model.judge(verdict, NOON + 5 * window)
    for life, (_rule, model) in lives.items():
        rows = await sql.fetch(
            "select before, after, episode from pipeline.alert_history where rule = $1 order by id", f"life {life}"
        )
        state = await sql.fetchval("select state from pipeline.alert_state where rule = $1", f"life {life}")
        assert [tuple(row) for row in rows] == model.history, life
        assert (state or "inactive") == model.state
    assert sum(len(model.history) for _, model in lives.values()) > EXAMPLES * 2
