"""Plans: what is kept of them, when two are the same, and how they are written."""

from __future__ import annotations

import json

import pytest

from pipeline.core.plan import MAX_SUMMARY, Node, kept, kept_settings, masked, shape, summary
from pipeline.core.plan_text import plan_text

SCAN: Node = {
    "Node Type": "Index Scan", "Parallel Aware": False, "Async Capable": False, "Scan Direction": "Forward",
    "Index Name": "orders_pkey", "Relation Name": "orders", "Alias": "o", "Startup Cost": 0.29, "Total Cost": 2.5,
    "Plan Rows": 1, "Plan Width": 24, "Index Cond": "(id = 4711)", "Filter": "(name = 'Müller''s'::text)",
}  # fmt: skip
JOIN: Node = {
    "Node Type": "Hash Join", "Join Type": "Left", "Startup Cost": 1, "Total Cost": 2, "Plan Rows": 3,
    "Plan Width": 4,
    "Hash Cond": "(o.id = i.order_id)",
    "Plans": [SCAN, {"Node Type": "Seq Scan", "Relation Name": "items", "Alias": "items", "Parallel Aware": True}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("(name = 'Müller''s'::text)", "(name = ?::text)"),
        ("(id = ANY ('{1,2,3}'::integer[]))", "(id = ANY (?::integer[]))"),
        ("((a1 > 5) AND (b <> '-1'::integer) AND (c = $1))", "((a1 > ?) AND (b <> ?::integer) AND (c = $1))"),
        ("(NOT (ANY (id = (hashed SubPlan 1).col1)))", "(NOT (ANY (id = (hashed SubPlan 1).col1)))"),
        ("(id = (InitPlan 2).col1)", "(id = (InitPlan 2).col1)"),
        (r"(a = E'\\x'::bytea)", "(a = ?::bytea)"),
        ('("Odd 5" = 7)', '("Odd 5" = ?)'),
        ("(a = 'not closed)", "?"),
    ],
)
def test_no_literal_of_an_expression_is_kept(text: str, without: str) -> None:
    assert masked(text) == without


def test_only_known_fields_are_kept_and_their_literals_are_not() -> None:
    secret = {
        "Remote SQL": "select 'secret'", "Output": ["'secret'"], "Some New Field": "secret",
        "Total Cost": "secret",
        "Node Type": {"secret": 1}, "Alias": 5, "Sort Key": ["(a || 'secret')"],
        "Grouping Sets": [{"Group Keys": [["(a + 4711)"], []], "Other": "secret"}],
    }  # fmt: skip
    found = kept({**JOIN, "Plans": [{**SCAN, **secret}, "secret"]})
    text = json.dumps(found)
    assert "secret" not in text
    assert "4711" not in text
    assert "Müller" not in text
    assert found["Plans"][0]["Sort Key"] == ["(a || ?)"]
    assert found["Plans"][0]["Index Cond"] == "(id = ?)"
    deep: Node = {"Node Type": "Append"}
    for _level in range(2_000):
        deep = {"Node Type": "Append", "Plans": [deep]}
    assert len(json.dumps(kept(deep))) < 20_000


def test_settings_are_those_of_the_planner_but_not_the_one_that_we_set() -> None:
    assert kept_settings({"work_mem": "64MB", "plan_cache_mode": "force_generic_plan"}) == {"work_mem": "64MB"}
    assert kept_settings(None) == {}


@pytest.mark.parametrize(
    "change",
    [{"Node Type": "Index Only Scan"}, {"Relation Name": "other"}, {"Index Name": "other"}, {"Plans": [JOIN]},
     {"Scan Direction": "Backward"}, {"Subplan Name": "InitPlan 1"}],
)  # fmt: skip
def test_another_node_relation_or_index_is_another_plan(change: Node) -> None:
    assert shape({**JOIN, "Plans": [{**SCAN, **change}]}) != shape({**JOIN, "Plans": [SCAN]})


def test_the_order_of_a_join_and_its_nesting_matter_and_costs_and_values_do_not() -> None:
    one, other = JOIN["Plans"]
    assert shape(JOIN) != shape({**JOIN, "Plans": [other, one]})
    assert shape({**JOIN, "Plans": [{**one, "Plans": [other]}]}) != shape(JOIN)
    same = {**JOIN, "Total Cost": 99, "Plans": [{**SCAN, "Index Cond": "(id = 1)", "Plan Rows": 9}, other]}
    assert shape(same) == shape(JOIN)


def test_partitions_that_are_read_alike_are_one_plan_however_many() -> None:
    def partition(number: int, kind: str = "Seq Scan") -> Node:
        return {"Node Type": kind, "Relation Name": f"days_{number}", "Plan Rows": number}

    few = kept({"Node Type": "Append", "Plans": [partition(1), partition(2)]})
    many = kept({"Node Type": "Append", "Plans": [partition(number) for number in range(2, 400)]})
    assert [below.get("Plans Alike") for below in many["Plans"]] == [398]
    assert shape(few) == shape(many)
    assert "Plans Alike: 398, of other partitions" in plan_text(many)
    mixed = kept({"Node Type": "Append", "Plans": [partition(1), partition(2, "Index Scan"), partition(3)]})
    assert [below.get("Plans Alike") for below in mixed["Plans"]] == [2, None]
    assert shape(mixed) != shape(few)
    lone = kept({"Node Type": "Append", "Plans": [partition(1)]})
    assert shape(lone) != shape(kept({"Node Type": "Append", "Plans": [partition(2)]})), "a union's other table"


def test_a_plan_fits_in_one_line() -> None:
    assert (
        summary({"Node Type": "Limit", "Plans": [JOIN]})
        == "Limit > Hash Left Join (Index Scan using orders_pkey on orders, Parallel Seq Scan on items)"
    )
    long = summary({"Node Type": "Append", "Plans": [SCAN] * 500})
    assert len(long) == MAX_SUMMARY
    assert long.endswith(" ...")


def test_a_plan_is_written_as_explain_writes_it() -> None:
    lines = plan_text(kept({"Node Type": "Limit", "Plan Rows": 3, "Plans": [JOIN]}), {"work_mem": "64MB"})
    assert lines.splitlines() == [
        "Limit  (cost=0.00..0.00 rows=3 width=0)",
        "  ->  Hash Left Join  (cost=1.00..2.00 rows=3 width=4)",
        "        Hash Cond: (o.id = i.order_id)",
        "        ->  Index Scan using orders_pkey on orders o  (cost=0.29..2.50 rows=1 width=24)",
        "              Index Cond: (id = ?)",
        "              Filter: (name = ?::text)",
        "        ->  Parallel Seq Scan on items  (cost=0.00..0.00 rows=0 width=0)",
        "Settings: work_mem = '64MB'",
    ]
