"""Tags as flat groups: what a change ends, a response that depends on it is in, and nothing of its neighbours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.events import Event
from pipeline.core.groups import EVERYTHING, MOST_GROUPS, cache_groups, ended_by, groups_of, widened
from pipeline.core.tags import TagIndex

TAGS = st.lists(st.sampled_from(["a", "b", "1", "2", "x y", "é"]), min_size=1, max_size=3).map(":".join)


def update(*keys: str, name: str = "orders") -> Event:
    return Event(5, name, "u", keys or None)


def invalidate(**said: object) -> Event:
    return Event(5, "pipeline.invalidate", "e", payload=json.dumps(said))


def test_a_change_of_one_row_ends_that_row_and_the_whole_but_not_its_neighbour() -> None:
    ended = ended_by([update("7")])
    assert ended & set(groups_of(["orders:7"]))
    assert ended & set(groups_of(["orders"]))
    assert not ended & set(groups_of(["orders:8"]))
    assert not ended & set(groups_of(["order"]))


def test_a_change_of_unknown_extent_ends_every_row() -> None:
    assert ended_by([update()]) & set(groups_of(["orders:8"]))


@given(TAGS, st.sets(TAGS, min_size=1, max_size=5))
def test_groups_touch_where_tags_do(changed: str, depends: set[str]) -> None:
    index = TagIndex()
    index.add("response", depends)
    touched = bool(index.touched(changed))
    assert bool(ended_by([invalidate(tags=[changed])]) & set(groups_of(depends))) == touched


@given(st.text(st.sampled_from("ab1:"), max_size=5), st.sets(TAGS, min_size=1, max_size=5))
def test_an_invalidation_by_prefix_ends_at_least_what_begins_with_it(prefix: str, depends: set[str]) -> None:
    if any(tag.startswith(prefix) for tag in depends):
        assert ended_by([invalidate(prefix=prefix)]) & set(groups_of(depends))


@pytest.mark.parametrize("payload", [None, "", "{", "[]", '{"tags": 7}'])
def test_an_invalidation_that_cannot_be_read_ends_nothing(payload: str | None) -> None:
    assert ended_by([Event(5, "pipeline.invalidate", "e", payload=payload)]) == set()


def test_emits_of_the_application_end_nothing() -> None:
    assert ended_by([Event(5, "orders", "e", payload="7")]) == set()


def test_a_response_of_many_rows_depends_on_the_table_and_keeps_its_other_rows() -> None:
    groups = groups_of({f"orders:{number}" for number in range(100)} | {"customers:1"})
    assert groups == ["*", "customers:*", "customers:1", "orders"]


@given(st.sets(TAGS, max_size=200).map(lambda tags: tags | {f"orders:{tag}" for tag in tags}))
def test_a_response_has_no_more_groups_than_caches_must_take_and_each_change_still_ends_it(
    tags: set[str],
) -> None:
    groups = groups_of(tags)
    assert len(groups) <= MOST_GROUPS
    assert EVERYTHING in groups
    for tag in tags:
        assert ended_by([invalidate(tags=[tag])]) & set(groups)


def test_a_response_of_more_tables_than_that_names_them_all() -> None:
    assert len(groups_of(f"t{number}" for number in range(40))) == 41


def test_too_many_changes_at_once_end_whole_tables_and_at_last_everything() -> None:
    rows = ended_by([update(*map(str, range(2_000))), update("1", name="customers")])
    assert widened(rows, 5_000) == rows
    assert widened(rows, 1_000) == {"customers", "customers:*", "orders", "orders:*"}
    tables = ended_by([update(name=f"t{number}") for number in range(2_000)])
    assert widened(tables, 1_000) == {EVERYTHING}


def test_names_are_printable_and_without_spaces_in_headers() -> None:
    assert groups_of(['o"r d:é']) == ["*", "o%22r%20d:*", "o%22r%20d:%C3%A9"]
    assert cache_groups(["*", "orders:7"]) == '"*", "orders:7"'
