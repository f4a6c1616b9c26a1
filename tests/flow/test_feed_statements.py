"""Every kind of statement is reported once, with the keys that it touched."""

from __future__ import annotations

import pytest

from tests.conftest import eventually
from tests.flow.feed_kit import Feed, said

ITEM = "create table item (id int primary key, name text, stock int default 0)"


@pytest.fixture
async def shop(feed: Feed) -> Feed:
    await feed.watch(ITEM, "'item'")
    return feed


async def test_an_insert_names_its_keys(shop: Feed) -> None:
    [event] = await shop.told("insert into item values (1), (2)")
    assert (event.name, event.op, sorted(event.keys or ()), event.rows) == ("item", "i", ["1", "2"], 2)
    assert event.xid == int(await shop.sql.fetchval("select xmin::text from item where id = 1"))


async def test_an_update_names_the_old_and_the_new_key(shop: Feed) -> None:
    await shop.told("insert into item values (1), (2)")
    assert said(await shop.told("update item set id = 9 where id = 1")) == [("u", ["1", "9"], 1)]


async def test_an_update_of_nothing_is_no_event(shop: Feed) -> None:
    assert await shop.told("update item set stock = 1", "delete from item") == []


async def test_a_delete_names_the_old_keys(shop: Feed) -> None:
    await shop.told("insert into item values (1), (2)")
    assert said(await shop.told("delete from item")) == [("d", ["1", "2"], 2)]


async def test_a_truncate_counts_for_the_whole_table(shop: Feed) -> None:
    assert said(await shop.told("truncate item")) == [("t", None, 0)]


async def test_copy_is_an_insert(shop: Feed) -> None:
    await shop.sql.copy_records_to_table("item", records=[(1, "a", 1), (2, "b", 2)])
    assert said(await shop.told()) == [("i", ["1", "2"], 2)]


async def test_merge_reports_each_of_its_branches(shop: Feed) -> None:
    await shop.told("insert into item values (1, 'old'), (2, 'gone')")
    events = await shop.told(
        "merge into item i using (values (1, 'new'), (2, null), (3, 'more')) v (id, name) on i.id = v.id"
        " when matched and v.name is null then delete"
        " when matched then update set name = v.name"
        " when not matched then insert (id, name) values (v.id, v.name)"
    )
    assert sorted(said(events)) == [("d", ["2"], 1), ("i", ["3"], 1), ("u", ["1"], 1)]


async def test_on_conflict_do_update_reports_inserts_and_updates(shop: Feed) -> None:
    await shop.told("insert into item values (1)")
    events = await shop.told("insert into item values (1), (2) on conflict (id) do update set stock = 5")
    assert sorted(said(events)) == [("i", ["2"], 1), ("u", ["1"], 1)]


async def test_on_conflict_do_nothing_reports_only_what_was_inserted(shop: Feed) -> None:
    await shop.told("insert into item values (1)")
    assert await shop.told("insert into item values (1) on conflict do nothing") == []
    events = await shop.told("insert into item values (1), (2) on conflict do nothing")
    assert said(events) == [("i", ["2"], 1)]


@pytest.mark.parametrize(("action", "op"), [("cascade", "d"), ("set null", "u")])
async def test_a_foreign_key_reports_what_it_does_to_other_rows(feed: Feed, action: str, op: str) -> None:
    await feed.run("create table parent (id int primary key)", "insert into parent values (1), (2)")
    await feed.watch(
        f"create table child (id int primary key, parent int references parent on delete {action});"
        "insert into child values (10, 1), (20, 2), (30, 2)",
        "'child'",
    )
    events = await feed.told("delete from parent")
    assert {key for event in events for key in event.keys or ()} == {"10", "20", "30"}
    assert {event.op for event in events} == {op}


@pytest.mark.parametrize(("rows", "keys"), [(256, 256), (257, None), (10_000, None), (20_000, None)])
async def test_more_than_256_keys_count_for_the_whole_table(shop: Feed, rows: int, keys: int | None) -> None:
    await shop.told(f"insert into item select n from generate_series(1, {rows}) n")
    [event] = await shop.told("update item set stock = 1")
    assert (event.op, event.rows) == ("u", rows)
    assert (None if event.keys is None else len(event.keys)) == keys


async def test_many_rows_with_few_keys_name_those_keys(feed: Feed) -> None:
    await feed.watch("create table line (item int)", "'line', keys => '{item}'")
    [event] = await feed.told("insert into line select n % 3 from generate_series(1, 9999) n")
    assert (sorted(event.keys or ()), event.rows) == (["0", "1", "2"], 9999)


class TestDeclaredColumns:
    @pytest.fixture
    async def shop(self, feed: Feed) -> Feed:
        await feed.watch(ITEM, "'item', columns => '{name}'")
        await feed.told("insert into item values (1, 'a', 1), (2, 'b', 1), (3, null, 1)")
        return feed

    async def test_an_update_of_another_column_is_no_event(self, shop: Feed) -> None:
        assert await shop.told("update item set stock = stock + 1") == []

    async def test_an_update_that_writes_the_same_value_is_no_event(self, shop: Feed) -> None:
        assert await shop.told("update item set name = name") == []

    async def test_an_update_names_only_the_rows_whose_column_changed(self, shop: Feed) -> None:
        events = await shop.told("update item set name = 'b', stock = 7")
        assert said(events) == [("u", ["1", "3"], 2)]

    async def test_a_change_to_null_counts(self, shop: Feed) -> None:
        assert said(await shop.told("update item set name = null where id < 3")) == [("u", ["1", "2"], 2)]

    async def test_a_change_of_the_key_counts(self, shop: Feed) -> None:
        assert said(await shop.told("update item set id = 8 where id = 1")) == [("u", ["1", "8"], 1)]

    async def test_two_rows_that_swap_their_values_are_both_named(self, shop: Feed) -> None:
        events = await shop.told("update item set name = case id when 1 then 'b' else 'a' end where id < 3")
        assert said(events) == [("u", ["1", "2"], 2)]

    async def test_with_no_columns_only_a_change_of_the_key_counts(self, shop: Feed) -> None:
        await shop.told("select pipeline.watch('item', columns => '{}')")
        events = await shop.told("update item set name = 'q'", "update item set id = 8 where id = 1")
        assert said(events) == [("u", ["1", "8"], 1)]

    async def test_inserts_and_deletes_count_always(self, shop: Feed) -> None:
        events = await shop.told("insert into item values (4)", "delete from item where id = 4")
        assert said(events) == [("i", ["4"], 1), ("d", ["4"], 1)]

    async def test_a_large_update_counts_for_the_whole_table(self, shop: Feed) -> None:
        await shop.told("insert into item select n from generate_series(10, 20100) n")
        assert said(await shop.told("update item set name = 'z'")) == [("u", None, 20094)]


async def test_consumers_see_what_followers_see(shop: Feed) -> None:
    await shop.told("insert into item values (1)", "update item set stock = 2", "delete from item")
    await eventually(lambda: [e.op for e in shop.handler.seen if e.name == "item"][-3:] == ["i", "u", "d"])


async def test_hundreds_of_events_at_once_arrive_in_the_order_of_their_transaction(shop: Feed) -> None:
    async with shop.sql.transaction():
        for key in range(700):
            await shop.sql.execute("insert into item values ($1)", key)
    events = await shop.told()
    assert [event.keys for event in events] == [(str(key),) for key in range(700)]
    assert len(shop.sink.batches) > 2
    assert all(batch.seq == batch.previous + 1 for batch in shop.sink.batches)
