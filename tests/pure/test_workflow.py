"""Putting workflows together: names, needs, and every way in which one can be none."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.workflow import Batch, Results, Workflow, chunks, find_cycle
from pipeline.errors import TaskError


def extract(job: object) -> None: ...


def names(flow: Workflow) -> list[str]:
    return [step.name for step in flow.steps]


def test_jobs_are_named_as_their_tasks_with_a_number_from_the_second_on() -> None:
    flow = Workflow("import")
    for task in (extract, extract, "shop.tasks.load", "load", extract):
        flow.add(task)
    assert names(flow) == ["extract", "extract-2", "load", "load-2", "extract-3"]


def test_arguments_are_given_by_name_or_as_a_mapping_where_an_option_has_that_name() -> None:
    step = Workflow("import").add(extract, {"queue": "b", "day": 1}, day=2, queue="a")
    assert (step.args, step.queue) == ({"queue": "b", "day": 2}, "a")


def test_needs_are_steps_or_names_and_each_counts_once() -> None:
    flow = Workflow("import")
    first = flow.add(extract)
    assert flow.add("load", after=first).after == ("extract",)
    assert flow.add("load", after=[first, "extract", "later"]).after == ("extract", "later")
    assert flow.add("later", name="later", after="extract").after == ("extract",)
    flow.check()


def test_a_name_that_is_taken_is_refused_at_once() -> None:
    flow = Workflow("import")
    flow.add(extract, name="a")
    with pytest.raises(TaskError, match="two jobs of workflow import are named a"):
        flow.add(extract, name="a")


def test_a_job_of_another_workflow_is_refused_at_once() -> None:
    other = Workflow("other").add(extract)
    flow = Workflow("import")
    flow.add(extract)
    with pytest.raises(TaskError, match="job extract is not in workflow import"):
        flow.add("load", after=other)


@pytest.mark.parametrize(
    "build", [lambda: Workflow("w", on_failure="x"), lambda: Workflow("w").add("t", on_failure="x")]
)  # type: ignore[arg-type]
def test_a_policy_that_is_none_is_refused_at_once(build: Any) -> None:
    with pytest.raises(TaskError, match="on_failure of workflow w is 'x'"):
        build()


@pytest.mark.parametrize("name", ["", "n" * 201])
def test_a_workflow_has_a_name(name: str) -> None:
    with pytest.raises(TaskError, match="1 to 200 characters"):
        Workflow(name)


def test_a_cycle_is_named() -> None:
    flow = Workflow("import")
    flow.add("t", name="start")
    flow.add("t", name="a", after=["c", "start"])
    flow.add("t", name="b", after="a")
    flow.add("t", name="c", after="b")
    flow.add("t", name="end", after="c")
    with pytest.raises(TaskError, match="cycle: (a needs c needs b needs a|b needs a|c needs b)"):
        flow.check()


def test_a_long_cycle_is_named_in_part() -> None:
    flow = Workflow("import")
    for n in range(1_000):
        flow.add("t", name=f"j{n}", after=f"j{(n + 1) % 1_000}")
    with pytest.raises(TaskError) as caught:
        flow.check()
    assert caught.value.message.endswith("... (1000 jobs)")
    assert len(caught.value.message) < 400


def test_a_need_that_is_not_there_is_named() -> None:
    flow = Workflow("import")
    flow.add("t", name="a", after="b")
    with pytest.raises(TaskError, match="job a needs b, which is not in workflow import"):
        flow.check()


def test_a_workflow_without_jobs_or_with_too_many_is_refused() -> None:
    flow = Workflow("import")
    with pytest.raises(TaskError, match="has no jobs"):
        flow.check()
    for n in range(100_001):
        flow.add("t", name=str(n))
    with pytest.raises(TaskError, match="100,001 jobs"):
        flow.check()


def test_too_many_needs_are_refused() -> None:
    flow = Workflow("import")
    first = [flow.add("t", name=f"a{n}") for n in range(1_001)]
    for n in range(1_000):
        flow.add("t", name=f"b{n}", after=first)
    with pytest.raises(TaskError, match="1,001,000 needs"):
        flow.check()


def test_a_batch_calls_back_after_all_of_its_jobs() -> None:
    flow = Batch([("t", {"n": 1}), (extract, {"n": 2})], then=("done", {"to": "ada"}), queue="slow").workflow
    assert names(flow) == ["1", "2", "then"]
    assert [step.queue for step in flow.steps] == ["slow"] * 3
    last = flow.steps[-1]
    assert (last.task, last.args, last.after, flow.on_failure) == ("done", {"to": "ada"}, ("1", "2"), "ignore")
    assert names(Batch([("t", {})]).workflow) == ["1"]


def test_a_batch_of_nothing_still_calls_back() -> None:
    flow = Batch([], then="done").workflow
    flow.check()
    assert flow.steps[0].after == ()


def test_chunks_hold_all_items_in_order() -> None:
    flow = chunks("t", range(5), size=2, argument="ids", args={"x": 1}, then="done").workflow
    assert [step.args for step in flow.steps[:-1]] == [
        {"x": 1, "ids": [0, 1]},
        {"x": 1, "ids": [2, 3]},
        {"x": 1, "ids": [4]},
    ]
    with pytest.raises(TaskError, match="a chunk cannot have 0 items"):
        chunks("t", [1], size=0)


def test_results_are_a_mapping_that_also_knows_what_failed() -> None:
    results = Results({"a": 1}, {"b": 7})
    assert (results, results.failed, Results().failed) == ({"a": 1}, {"b": 7}, {})


@given(st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=8, max_size=8))
def test_a_cycle_is_found_if_and_only_if_there_is_one(needs: list[set[int]]) -> None:
    graph = {str(n): [str(other) for other in after] for n, after in enumerate(needs)}
    cycle = find_cycle(graph)
    reach = {n: set(after) for n, after in enumerate(needs)}
    for _ in range(8):
        reach = {n: seen.union(*(reach[other] for other in seen)) for n, seen in reach.items()}
    assert bool(cycle) == any(n in seen for n, seen in reach.items())
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in graph[name] for name, after in pairwise(cycle))
