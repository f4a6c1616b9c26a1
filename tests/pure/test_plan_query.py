"""Which texts a plan is asked for, and what stands in place of their literals."""

from __future__ import annotations

import pytest

from pipeline.core.plan_query import NotPlanned, Planned, planned


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("select * from t where a = 7 and b = 'x'", "select * from t where a = $1 and b = $2"),
        ("select * from t where a = 'it''s' limit 10 offset 5;", "select * from t where a = $1 limit 10 offset 5"),
        ("select a from t where b in (1, 2) order by 1", "select a from t where b in ($1, $2) order by 1"),
        ("select a::numeric(10,2) from t where b > 1.5e3", "select a::numeric(10,2) from t where b > $1"),
        ("select cast(a as varchar(20)), f(3)", "select cast(a as varchar(20)), f($1)"),
        ("select a from t where at > date '2026-01-01' -- x", "select a from t where at > $1::date"),
        ("delete from t where at < now() - interval '1 day'", "delete from t where at < now() - $1::interval"),
        (r"select E'a\'b', $$c 'd'$$", "select $1, $2"),
    ],
)
def test_literals_become_parameters_where_that_is_the_same_statement(text: str, without: str) -> None:
    found = planned(text)
    assert isinstance(found, Planned)
    assert found.without == without


@pytest.mark.parametrize(
    "text", ["select 'a'\n'b'", "select point '(1,2)'", "select U&'a!0061' UESCAPE '!'", "select a from t limit 5"]
)
def test_a_literal_stays_where_no_parameter_may_stand(text: str) -> None:
    assert planned(text) == Planned(text, None)


def test_a_text_with_parameters_keeps_its_literals_which_are_the_programs() -> None:
    assert planned("select 1 where a = $1 and b = 'x';") == Planned("select 1 where a = $1 and b = 'x'", None)
    psycopg = "select 1 where a = %s and b=%(b)s and c = %(c)s or d = %(b)s and e % s = 1"
    assert planned(psycopg) == Planned("select 1 where a = $1 and b=$2 and c = $3 or d = $2 and e % s = 1", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("select 1; delete from t", "more than one"),
        ("select 1; commit; delete from t", "more than one"),
        ("select 1 /* ; */ ; -- x\n commit", "more than one"),
        ("create table x ()", "create has no plan"),
        ("/* select */ drop table t", "drop has no plan"),
        ("copy t from stdin", "copy has no plan"),
        ("explain analyze delete from t", "explain has no plan"),
        ("prepare p as select 1", "prepare has no plan"),
        ("execute p", "execute has no plan"),
        ("do $$ begin end $$", "do has no plan"),
        ("call p()", "call has no plan"),
        ("set role postgres", "set has no plan"),
        ("select 'a", "truncated"),
        ("select \\a", "truncated"),
        ("", "no statement"),
        ("'a'", "no statement"),
        ("select " + "a, " * 50_000 + "b", "longer than"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, why: str) -> None:
    found = planned(text)
    assert isinstance(found, NotPlanned)
    assert why in found.reason


def test_a_semicolon_inside_of_something_is_none() -> None:
    assert planned("select ';' /* ; */ from \"a;b\" where x = $1;;") == Planned(
        "select ';' /* ; */ from \"a;b\" where x = $1", None
    )
