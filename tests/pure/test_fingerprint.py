"""Fingerprints: what groups, what does not, and what is no whole statement."""

from __future__ import annotations

import pytest

from pipeline.core.fingerprint import (
    FINGERPRINT_VERSION,
    NO_PRIVILEGE,
    TRUNCATED,
    UNAVAILABLE,
    UNPARSABLE,
    fingerprint,
)

SAME = {
    "numbers": ["select 1", "select 42", "select -7", "select 1e5", "select .5", "select 1.", "select 0x1F",
                "select 1_000", "select 0b101", "select 0o17", "select +3", "select - -3", "select 1.5e-3"],
    "strings": ["select 'a'", "select ''", "select 'it''s'", r"select E'a\'b'", r"select e'\\'", "select B'01'",
                "select X'FF'", "select U&'d\\0061t'", "select U&'d!0061t' UESCAPE '!'", "select $$a 'b' $c$ $$",
                "select $x$ $$ $y$ $x$", "select 'a'\n  'b'", "select 'a' -- x\n 'b'", "select N'a'", "select $1",
                "select null", "select TRUE", "select 5"],
    "parameters": ["select * from t where a = 1 and b = 'x'", "select * from t where a = $1 and b = $2",
                   "select * from t where a=%s and b=%s", "select * from t where a = %(a)s and b = %(b)s",
                   "select * from t where a = %b and b = %t"],
    "blanks, comments and case": ["select a, b from t where c = 1", "SELECT a,b FROM t WHERE c=1;",
                                  "/* app:shop */ select a\t,\n b from T where C = 1 -- end",
                                  "select a,/* x /* y */ z */b from t where c=1",
                                  " Select A, B\nfrom t wHere c = 1;;"],
    "in lists": ["select * from t where a in (1)", "select * from t where a in (1, 2, 3)",
                 "select * from t where a IN ($1,$2)", "select * from t where a in ('x', -1, null, $4)",
                 "select * from t where a = any($1)", "select * from t where a = ANY (ARRAY[1, 2, 3])",
                 "select * from t where a = some($1)", "select * from t where a in %s",
                 "select * from t where a in (1, /* one */ 2)", "select * from t where a = any(%(ids)s)"],
    "not in": ["select * from t where a not in (1, 2)", "select * from t where a <> all($1)",
               "select * from t where a != ALL(array[1])"],
    "in lists of casts": ["select * from t where a in ($1::int)", "select * from t where a in (1::int, 2::int)"],
    "in lists of rows": ["select * from t where (a, b) in ((1, 2))",
                         "select * from t where (a,b) in ((1,'x'),(3,4))"],
    "in lists that are mixed": ["select * from t where a in (1, b)", "select * from t where a in (1, b, 2, b, 3)"],
    "values": ["insert into t (a, b) values (1, 'x')", "INSERT INTO t (a,b) VALUES ($1,$2),($3,$4)",
               "insert into t(a, b) values (1, 'x'), (2, null), (-3, e'\\'')",
               "insert into t(a, b) values (1, 'x'), (2, /* y */ null)"],
    "values and what follows": ["insert into t (a) values (1) on conflict do nothing returning b",
                                "insert into t (a) values (1), (2) on conflict do nothing returning b"],
    "values of mixed rows": ["values (1, now()), (2, now())", "values (1, now())"],
    "arrays": ["select array[1]", "select array[1, 2, 3]", "select ARRAY['a']"],
    "nested arrays": ["select array[[1, 2], [3, 4]]", "select array[[1]]"],
    "quoted names": ['select "a" from "t"', "select a from t", "select A from T"],
    "settings": ["set search_path = a", "set search_path to a, b", "SET search_path = 'x', y"],
    "time zone": ["set time zone 'UTC'", "set time zone 5"],
    "savepoints": ["savepoint sa_savepoint_1", "savepoint a"],
    "releases": ["release savepoint sa_savepoint_1", 'release savepoint "s140_x12"'],
    "rollbacks": ["rollback to savepoint a", "rollback to savepoint b_2"],
    "cursors": ["declare c_1 no scroll cursor for select a from t where b = 1",
                'declare "c_7f3a_2" no scroll cursor for select a from t where b = $1'],
    "fetches": ["fetch forward 50 from c_1", "fetch forward 100 from c_2"],
    "prepared": ["execute __asyncpg_stmt_1__ (1)", "execute __asyncpg_stmt_2f__ ('x')"],
    "operators": ["select a != 1", "select a<>2"],
    "signs": ["select * from t where a = -1", "select * from t where a=-1", "select * from t where a=1"],
    "minus": ["select a-1", "select a - 2", "select a - -3", "select a- $1"],
    "slices": ["select a[1:2]", "select a[3:4]"],
}  # fmt: skip

DIFFERENT = [
    "select a", "select b", 'select "A"', 'select "a b"', "select a.b", "select a1", "select a2", "select a_1",
    "select a from t", "select a from u", "select a from s.t", 'select "user"', "select user",
    "select * from t where a = 1", "select * from t where a <> 1", "select * from t where a < 1",
    "select * from t where a in (1)", "select * from t where a not in (1)",
    "select * from t where a in (select 1)",
    "select * from t where a in (select b, c from u)", "select * from t where a in (select c, b from u)",
    "select * from t where a is null", "select * from t where a is not null",
    "select * from t where a is true", "select * from t where a", "select * from t where not a",
    "select * from t where a ? 'k'", "select * from t where a @> '{}'", "select * from t where a -> 'k' = '1'",
    "select * from t where a ->> 'k' = '1'", "select * from t where a = any(b)",
    "select * from t where a < any($1)",
    "insert into t (a, b) values (1, 2)", "insert into t (a) values (1)", "insert into t values (1, 2)",
    "insert into t values (1, default)", "insert into t values (1, 2), (default, 3)",
    "insert into t default values",
    "select 1::int", "select 1::bigint", "select 1", "select 1, 2", "select f(1)", "select f(1, 2)", "select -a",
    "select a - 1", "select a + 1", "select - $1", "select a % s", "select array[1]", "select array[a]",
    "begin", "commit",
    "set work_mem = 1", "set search_path = 1", "set local work_mem = 1", "set work_mem = default", "set role x",
    "set session authorization x", "set transaction isolation level serializable", "set time zone 'x'",
    "savepoint a", "release savepoint a", "rollback to savepoint a", "rollback", "listen a", "listen b",
    "copy t from stdin", "copy t to stdout", "execute one(1)", "execute two(1)", "select 1; select 2",
    "select 1; commit",
]  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_statements_that_differ_in_values_only_have_one_fingerprint(what: str) -> None:
    found = {text: fingerprint(text) for text in SAME[what]}
    assert len(set(found.values())) == 1, found
    assert {one.kind for one in found.values()} == {"ok"}


def test_statements_that_differ_in_more_have_fingerprints_of_their_own() -> None:
    found: dict[str, list[str]] = {}
    for text in DIFFERENT:
        found.setdefault(fingerprint(text).hex, []).append(text)
    assert [texts for texts in found.values() if len(texts) > 1] == []


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("SELECT  a,b FROM t WHERE c IN (1,2) AND d='x' LIMIT 5",
         "select a, b from t where c in ($1 /*, ... */) and d = $2 limit $3"),
        ("insert into T (a,b) values (1,now()),(2,now())", "insert into t(a, b) values ($1, now())"),
        ('select count(*), "Odd Name", t."x" from "t" where x::numeric(10,2) > -1',
         'select count(*), "Odd Name", t.x from t where x::numeric($1, $2) > $3'),
        ("set local statement_timeout to '5s'", "set local statement_timeout = $1"),
    ],
)  # fmt: skip
def test_the_text_of_a_group_is_one_line_with_numbered_values(text: str, normalised: str) -> None:
    assert fingerprint(text).text == normalised


def test_the_text_of_a_group_has_the_fingerprint_of_the_group() -> None:
    for text in [*DIFFERENT, *(text for texts in SAME.values() for text in texts)]:
        one = fingerprint(text)
        assert fingerprint(one.text) == one


@pytest.mark.parametrize(
    "text",
    ["select * from t where a = 'abc", "select * from t where a in (1, 2", 'select "a', "select /* a /* b */",
     "select $$a",
     "select $q$ a $$", r"select e'a\'", "select a[1", "insert into t values (1, 2), (3", "'", "/*", '"'],
)  # fmt: skip
def test_a_text_that_ends_inside_of_something_is_truncated_and_never_in_the_group_of_a_whole_one(
    text: str,
) -> None:
    one = fingerprint(text)
    assert one.kind == "truncated"
    assert one.text.endswith(" ...") or one.text == TRUNCATED
    assert "abc" not in one.text


def test_a_text_that_is_known_to_be_cut_is_truncated_though_it_looks_whole() -> None:
    whole, cut = fingerprint("select a from t"), fingerprint("select a from t", cut=True)
    assert (cut.kind, cut.text) == ("truncated", "select a from t ...")
    assert cut.hex != whole.hex
    assert cut == fingerprint("SELECT a FROM t", cut=True)


@pytest.mark.parametrize(
    "text",
    ["select )", "select (]", "select a]", "hello world", "select \\d", "select a\0b", "42", "'x'", "{}",
     "select {a}", 'select "a\0b"', "select 'a\0b'",
     "<html>", "$1", "selct 1"],
)  # fmt: skip
def test_what_is_no_sql_is_one_group(text: str) -> None:
    assert fingerprint(text) == fingerprint(")")
    assert (fingerprint(text).kind, fingerprint(text).text) == ("unparsable", UNPARSABLE)


@pytest.mark.parametrize(
    ("text", "name"),
    [("", UNAVAILABLE), (" \n", UNAVAILABLE), ("-- ping", UNAVAILABLE), (";", UNAVAILABLE),
     ("/* a */;", UNAVAILABLE),
     ("<insufficient privilege>", NO_PRIVILEGE), ("<command string not enabled>", UNAVAILABLE)],
)  # fmt: skip
def test_what_the_server_hides_is_a_group_with_that_name(text: str, name: str) -> None:
    assert (fingerprint(text).kind, fingerprint(text).text) == ("unparsable", name)


def test_a_beginning_that_belongs_behind_something_is_no_sql() -> None:
    for text in ("uescape '!'", "uescape", "uescape $1 select"):
        assert fingerprint(text).kind == "unparsable"


def test_a_fingerprint_tells_the_rules_that_made_it_and_stays_what_it_is() -> None:
    one = fingerprint("select * from orders where id in (1, 2)")
    assert one.version == FINGERPRINT_VERSION == 1
    assert one.hex == "eb81cd20ed71140a", "another key cuts the history of every query: raise FINGERPRINT_VERSION"


def test_a_long_text_is_kept_in_part_and_counts_as_a_whole() -> None:
    columns = ", ".join(f"column_{number}" for number in range(3_000))
    one, other = fingerprint(f"select {columns} from t"), fingerprint(f"select {columns} from u")
    assert len(one.text) < 10_010
    assert one.text.endswith(" ...")
    assert one.kind == "ok"
    assert one.hex != other.hex
