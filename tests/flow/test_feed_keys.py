"""Names and keys: whatever Postgres allows, every process reads the same text."""

from __future__ import annotations

import asyncpg
import pytest

from tests.flow.feed_kit import Feed, said


async def test_a_composite_key_is_joined_by_commas(feed: Feed) -> None:
    await feed.watch("create table seat (hall int, place text, primary key (place, hall))", "'seat'")
    events = await feed.told("insert into seat values (7, 'A1')", "update seat set hall = 8")
    assert said(events) == [("i", ["A1,7"], 1), ("u", ["A1,7", "A1,8"], 1)]


@pytest.mark.parametrize("create", ["create table note (body text)", "create table note (id int primary key)"])
async def test_without_keys_every_change_counts_for_the_whole_table(feed: Feed, create: str) -> None:
    await feed.watch(create, "'note', keys => '{}'")
    events = await feed.told("insert into note values ('1')", "delete from note")
    assert said(events) == [("i", None, 1), ("d", None, 1)]


async def test_columns_can_be_declared_where_no_key_is(feed: Feed) -> None:
    await feed.watch("create table note (body text, seen int)", "'note', columns => '{body}'")
    events = await feed.told(
        "insert into note values ('a', 1)", "update note set seen = 2", "update note set body = 'b'"
    )
    assert said(events) == [("i", None, 1), ("u", None, 1)]


@pytest.mark.parametrize(
    "key", ["it's", 'say "hi"', "a,b", "ключ ☃ 🐘", "back\\slash", "line\nbreak", "\t", "{}", "null", " ", "%s"]
)
async def test_a_text_key_arrives_as_it_was_written(feed: Feed, key: str) -> None:
    await feed.watch("create table page (slug text primary key)", "'page'")
    await feed.sql.execute("insert into page values ($1)", key)
    assert said(await feed.told()) == [("i", [key], 1)]


async def test_an_empty_text_is_a_key_and_null_is_none(feed: Feed) -> None:
    await feed.watch("create table page (slug text)", "'page', keys => '{slug}'")
    events = await feed.told("insert into page values ('')", "insert into page values (null)")
    assert said(events) == [("i", [""], 1), ("i", None, 1)]


@pytest.mark.parametrize("key", ["x" * 20_000, "🐘" * 3_000])
async def test_keys_too_long_for_one_notification_arrive(feed: Feed, key: str) -> None:
    await feed.watch("create table page (slug text)", "'page', keys => '{slug}'")
    await feed.sql.execute("insert into page values ($1)", key)
    assert said(await feed.told()) == [("i", [key], 1)]


@pytest.mark.parametrize("name", ["Order Lines", 'quo"te', "it's", "select", "Straße", "50%", "a.b", "$1"])
async def test_tables_and_columns_with_any_name_can_be_watched(feed: Feed, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    await feed.run(f'create table {quoted} ({quoted} int primary key, {quoted[:-1]}2" text)')
    tag = await feed.sql.fetchval(
        "select pipeline.watch($1, keys => $2, columns => $3, timing => true)", quoted, [name], [name + "2"]
    )
    await feed.told()
    events = await feed.told(
        f"insert into {quoted} values (5, 'a')",
        f"update {quoted} set {quoted[:-1]}2\" = 'b'",
        f"delete from {quoted}",
        f"truncate {quoted}",
    )
    assert [(e.name, e.op, e.keys) for e in events] == [
        (tag, "i", ("5",)), (tag, "u", ("5",)), (tag, "d", ("5",)), (tag, "t", None)
    ]  # fmt: skip
    assert tag == name


async def test_a_table_of_another_schema_is_known_by_its_full_name(feed: Feed) -> None:
    await feed.run('create schema "My Shop"', 'create table "My Shop".item (id int primary key)')
    await feed.told("""select pipeline.watch('"My Shop".item')""")
    [event] = await feed.told('insert into "My Shop".item values (1)')
    assert list(event.tags()) == ["My Shop.item:1", "My Shop.item"]


async def test_the_longest_names_work(feed: Feed) -> None:
    name = "n" * 63
    await feed.watch(f"create table {name} ({name} int primary key)", f"'{name}', timing => true")
    assert said(await feed.told(f"insert into {name} values (1)")) == [("i", ["1"], 1)]


@pytest.mark.parametrize(
    ("kind", "value", "settings"),
    [
        ("timestamptz", "2024-03-01 12:00:00+00", ["set timezone = 'Asia/Tokyo'"]),
        ("timestamptz", "2024-03-01 12:00:00+00", ["set datestyle = 'German, DMY'"]),
        ("date", "2024-03-01", ["set datestyle = 'SQL, DMY'"]),
        ("interval", "1 day 02:00", ["set intervalstyle = 'postgres_verbose'"]),
        ("float8", "0.1", ["set extra_float_digits = -10"]),
        ("bytea", "\\x00ff", ["set bytea_output = 'escape'"]),
        ("tstzrange", "[2024-03-01 12:00:00+00,)", ["set timezone = 'Asia/Tokyo'"]),
        ("timestamptz[]", "{2024-03-01 12:00:00+00}", ["set timezone = 'Asia/Tokyo'"]),
        ("float8[]", "{0.1}", ["set extra_float_digits = -10"]),
        ("moment", "2024-03-01 12:00:00+00", ["set timezone = 'Asia/Tokyo'"]),
        ("pair", "(2024-03-01 12:00:00+00,1)", ["set timezone = 'Asia/Tokyo'"]),
    ],
)
async def test_a_key_reads_the_same_whatever_the_writers_session(
    feed: Feed, kind: str, value: str, settings: list[str]
) -> None:
    await feed.run("create domain moment as timestamptz", "create type pair as (at timestamptz, n int)")
    await feed.watch(f"create table item (id {kind} primary key, n int)", "'item', replicated => true")
    [plain] = await feed.told(f"insert into item values ('{value}')")
    [other] = await feed.told(*settings, "update item set n = 1")
    assert plain.keys == other.keys
    await feed.run("set session_replication_role = replica")
    replicated = await feed.told("update item set n = 2")
    assert {event.keys for event in replicated} == {plain.keys}


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("numeric", "12345678901234567890.1234", "12345678901234567890.1234"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("mood", "so so", "so so"),
        ("boolean", "t", "true"),
        ("char(4)", "ab", "ab"),
        ("inet", "10.0.0.1", "10.0.0.1/32"),
        ("timestamptz", "2024-03-01 12:00:00+02", "2024-03-01 10:00:00+00"),
    ],
)
async def test_a_key_reads_as_postgres_casts_it_to_text(feed: Feed, kind: str, value: str, text: str) -> None:
    await feed.run("create type mood as enum ('so so', 'fine')")
    await feed.watch(f"create table item (id {kind} primary key)", "'item'")
    [event] = await feed.told(f"insert into item values ('{value}')")
    assert event.keys == (text,)


async def test_a_stored_generated_column_can_be_key_and_declared(feed: Feed) -> None:
    await feed.watch(
        "create table item (id int, twice int generated always as (id * 2) stored primary key, n int)",
        "'item', columns => '{twice}'",
    )
    events = await feed.told("insert into item (id) values (4)", "update item set n = 1", "update item set id = 5")
    assert said(events) == [("i", ["8"], 1), ("u", ["10", "8"], 1)]


async def test_a_virtual_generated_column_is_never_missed(feed: Feed) -> None:
    if feed.sql.get_server_version().major < 18:
        pytest.skip("virtual generated columns came with Postgres 18")
    await feed.run("create table item (id int primary key, a int, twice int generated always as (a * 2) virtual)")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="virtual"):
        await feed.run("select pipeline.watch('item', columns => '{twice}')")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="virtual"):
        await feed.run("select pipeline.watch('item', keys => '{twice}')")
