"""The text form of node trees, as Postgres writes it."""

from __future__ import annotations

import pytest

from pipeline.core.query_keys import Param, constant, written
from pipeline.core.query_plan import DDL, Keyed, Plan
from pipeline.core.query_reads import Reads, add_reads
from pipeline.core.query_tree import Node, queries, read_tree, walk
from pipeline.errors import NotCacheable

CONST = (
    "{CONST :consttype 23 :consttypmod -1 :constcollid 0 :constlen 4 :constbyval true :constisnull false"
    " :location -1 :constvalue 4 [ -2 -1 -1 -1 -1 -1 -1 -1 ]}"
)


def node(text: str) -> Node:
    found = read_tree(text)
    assert isinstance(found, Node)
    return found


def test_a_node_has_its_fields_by_their_labels() -> None:
    found = node(
        r'{A :none <> :word join :list ("id" "a b" <>) :set (b 8 9) :yes true :inner {B :n 7} :empty "" :x ()}'
    )
    assert found.tag == "A"
    assert found.fields["none"] is None
    assert (found.text("word"), found.text("missing"), found.number("missing")) == ("join", "", 0)
    assert found.fields["list"] == ["id", "a b", None]
    assert found.numbers("set") == [8, 9]
    assert found.is_set("yes")
    inner = found.node("inner")
    assert inner is not None
    assert inner.number("n") == 7
    assert (found.fields["empty"], found.fields["x"]) == ("", [])


def test_names_may_look_like_anything_else() -> None:
    found = node(
        r'{A :first :second :third \<> :fourth *SELECT*\ 1 :fifth \{\(\) :sixth ("a\"b" "\\" ":x") :n {B}}'
    )
    assert found.fields["first"] == ":second"
    assert found.fields["third"] == "<>"
    assert found.fields["fourth"] == "*SELECT* 1"
    assert found.fields["fifth"] == "{()"
    assert found.fields["sixth"] == ['a"b', "\\", ":x"]


@pytest.mark.parametrize(
    "text", ["", "{A :b 1", "{A :b 1))", "({A :b 1})) ", "{A b}", "{}", "1 2", "(1", "}", "{(1) :a 2}"]
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="node"):
        read_tree(text)


def test_all_nodes_are_walked_and_statements_are_found_at_any_depth_of_lists() -> None:
    tree = read_tree("(({QUERY :a {B :c ({C} {QUERY})}}) {QUERY})")
    assert [one.tag for one in walk(tree)] == ["QUERY", "B", "C", "QUERY", "QUERY"]
    assert len(queries(tree)) == 2


def test_a_node_that_nobody_knows_is_refused() -> None:
    with pytest.raises(NotCacheable, match="uses newthing"):
        add_reads(Reads(), read_tree("({QUERY :commandType 1 :x {NEWTHING}})"), source=None)


def test_constants_are_read_in_the_order_of_the_server() -> None:
    assert constant(node(CONST), "int", little_endian=True) == "-2"
    swapped = CONST.replace("-2 -1 -1 -1 -1 -1 -1 -1", "0 0 0 0 0 0 1 2")
    assert constant(node(swapped), "int", little_endian=False) == "258"
    text = CONST.replace("4 [ -2 -1 -1 -1 -1 -1 -1 -1 ]", "7 [ 28 0 0 0 97 44 98 ]")
    assert constant(node(text), "text", little_endian=True) == "a,b"
    assert constant(node(text.replace("97", "-61")), "text", little_endian=True) is None
    assert constant(node(text.replace("28", "24")), "text", little_endian=True) is None
    assert (
        constant(node(CONST.replace("constisnull false", "constisnull true")), "int", little_endian=True) is None
    )


def test_arguments_that_cannot_be_written_as_a_trigger_would_are_not_keys() -> None:
    assert written([7], Param(1, "int")) == ["7"]
    assert written([[7, 8]], Param(1, "int", many=True)) == ["7", "8"]
    assert written(["6F9619FF-8b86-d011-b42d-00cf4fc964ff"], Param(1, "uuid")) == [
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    ]
    assert written([True], Param(1, "bool")) == ["true"]
    odd: list[tuple[object, Param]] = [
        (None, Param(1, "int")),
        ("7", Param(1, "int")),
        (7.0, Param(1, "int")),
        (7, Param(1, "text")),
        ("x", Param(1, "uuid")),
        ([], Param(1, "int", many=True)),
        ([1, None], Param(1, "int", many=True)),
        (7, Param(1, "int", many=True)),
    ]
    assert [written([given], param) for given, param in odd] == [None] * len(odd)
    assert written([], Param(1, "int")) is None


def test_more_keys_than_a_trigger_names_are_the_whole_table() -> None:
    many = Param(1, "int", many=True)
    keyed = Plan(frozenset({DDL}), (Keyed("orders", ((many,), ("a", "b"))),), frozenset({"orders"}))
    assert keyed.tags([[1, 2]]) == {DDL, "orders:1,a", "orders:1,b", "orders:2,a", "orders:2,b"}
    assert keyed.tags([list(range(129))]) == {DDL, "orders"}
