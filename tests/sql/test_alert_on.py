"""Alerts that a trigger raises in the writer's transaction: when they should, and never to the write's harm."""

from __future__ import annotations

import asyncpg
import pytest

from tests.alert_kit import judge_all, states


@pytest.fixture(autouse=True)
async def orders(sql: asyncpg.Connection) -> None:
    await sql.execute(
        """
        delete from pipeline.alert_rule;
        create table orders (id int, region text, total numeric) partition by list (region);
        create table orders_eu partition of orders for values in ('eu');
        create table orders_rest partition of orders default;
        """
    )


async def inbox(sql: asyncpg.Connection) -> list[tuple[str, str, str, str]]:
    rows = await sql.fetch("select name, message, severity, labels from pipeline.alert_inbox order by id")
    return [tuple(row) for row in rows]


async def test_a_row_for_which_the_condition_holds_raises_an_alert(sql: asyncpg.Connection, dsn: str) -> None:
    trigger = await sql.fetchval(
        """select pipeline.alert_on('public.orders', 'insert or update', "when" => 'new.total > 10000',
        name => 'big order', message => 'order {id}: {total} in {region}', severity => 'info',
        labels => '{region}')
        """
    )
    assert trigger == "pipeline_alert_big order"
    await sql.execute(
        "insert into orders values (1, 'eu', 20000), (2, 'eu', 5), (3, 'us', 10001), (4, 'us', null)"
    )
    await sql.execute("insert into orders_eu values (5, 'eu', 30000)")
    await sql.execute("update orders set total = 99999 where id = 2")
    assert await inbox(sql) == [
        ("big order", "order 1: 20000 in eu", "info", '{"region": "eu"}'),
        ("big order", "order 3: 10001 in us", "info", '{"region": "us"}'),
        ("big order", "order 5: 30000 in eu", "info", '{"region": "eu"}'),
        ("big order", "order 2: 99999 in eu", "info", '{"region": "eu"}'),
    ]
    await judge_all(dsn)
    assert await states(sql) == [
        ("big order", '{region="eu"}', "firing"),
        ("big order", '{region="us"}', "firing"),
    ]
    again = """select pipeline.alert_on('orders', 'delete', 'old.total > 1', name => 'big order')"""
    assert await sql.fetchval(again) == trigger
    await sql.execute("insert into orders values (9, 'eu', 20000); delete from orders where id = 9")
    assert await inbox(sql) == [("big order", "big order", "warning", "{}")]
    assert await sql.fetchval("select pipeline.alert_off('orders', 'big order')") is True
    assert await sql.fetchval("select pipeline.alert_off('orders', 'big order')") is False
    await sql.execute("delete from orders")
    assert len(await inbox(sql)) == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("'orders', 'insert', 'new.nothing > 1'", "nothing does not exist"),
        ("'orders', 'insert', 'new.total'", "must be type boolean"),
        ("'orders', 'insert', 'old.total > 1'", "cannot reference OLD"),
        ("'orders', 'insert', 'true) execute function x(); drop table orders; --'", "syntax error"),
        ("'orders', 'insert', 'true); drop table orders; select (true'", "multi-query"),
        ("'orders', 'insert', '(select true)'", "cannot use subquery"),
        ("'orders', 'truncate'", "op must be"),
        ("'orders', null", "op must be"),
        ("'orders', 'insert', severity => 'bad'", "no severity bad"),
        ("'orders', 'insert', message => '{vlaue}'", "has no column vlaue"),
        ("'orders', 'insert', labels => '{total,regoin}'", "has no column regoin"),
        ("'orders', 'insert', name => ''", "1 to 200 characters"),
        ("'pipeline.ring', 'insert'", "is not a table"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_the_reason(
    call: str, reason: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=reason):
        await sql.fetchval(f"select pipeline.alert_on({call})")
    await sql.execute("insert into orders values (1, 'eu', 1)")
    assert await inbox(sql) == []


async def test_an_alert_that_cannot_be_raised_breaks_no_write_and_is_counted(sql: asyncpg.Connection) -> None:
    said: list[str] = []
    sql.add_log_listener(lambda _connection, message: said.append(message.message))
    await sql.fetchval("select pipeline.alert_on('orders', 'insert', name => 'any', labels => '{region}')")
    await sql.execute("insert into orders values (1, repeat('x', 2000), 1)")
    assert (await inbox(sql), await sql.fetchval("select last_value from pipeline.alert_losses")) == ([], 1)
    assert "could not raise the alert any for public.orders_rest: alert any: its labels are longer" in said[0]
    await sql.execute("alter table pipeline.alert_inbox rename to away")
    await sql.execute("insert into orders values (2, 'eu', 1)")
    await sql.execute("alter table pipeline.away rename to alert_inbox")
    await sql.execute("set pipeline.alert_rows = 'no number'; insert into orders values (3, 'eu', 1)")
    assert await sql.fetchval("select count(*) from orders") == 3
    assert len(await inbox(sql)) == 1
    assert await sql.fetchval("select last_value from pipeline.alert_losses") == 2


async def test_a_transaction_raises_a_hundred_at_most(sql: asyncpg.Connection) -> None:
    await sql.fetchval("select pipeline.alert_on('orders', 'insert', name => 'any')")
    await sql.execute("insert into orders select n, 'eu', 1 from generate_series(1, 250) n")
    assert len(await inbox(sql)) == 100
    assert await sql.fetchval("select last_value from pipeline.alert_losses") == 150
    await sql.execute("insert into orders values (1, 'eu', 1)")
    assert len(await inbox(sql)) == 101


async def test_a_writer_needs_no_rights_on_our_tables(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.fetchval("select pipeline.alert_on('orders', 'insert', name => 'any')")
    role = f"writer_{dsn.rpartition('t_')[2][:12]}"
    await sql.execute(f"create role {role}; grant insert on orders to {role}; set role {role}")
    try:
        await sql.execute("insert into orders values (1, 'eu', 1)")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")
    assert len(await inbox(sql)) == 1


async def test_the_trigger_cannot_be_made_without_the_privilege(sql: asyncpg.Connection, dsn: str) -> None:
    role = f"writer_{dsn.rpartition('t_')[2][:12]}"
    await sql.execute(
        f"create role {role}; grant insert, select on orders to {role}; grant usage on schema pipeline to {role};"
        f"set role {role}"
    )
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetchval("select pipeline.alert_on('orders', 'insert')")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")
