"""The tasks that every daemon has, and the exports that a program declares."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from handlers.builtin import add_builtin
from pipeline.app.daemon import Daemon
from pipeline.config import Config
from pipeline.config_sections import Jobs
from pipeline.core.export import Export
from pipeline.db.connection import Database
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling
from pipeline.schedules import declared


def test_a_daemon_has_the_built_in_tasks_and_may_be_made_twice() -> None:
    registry = Registry()
    for _ in range(2):
        Daemon(Config(), registry=registry)
    assert {"pgreflex.export", "pgreflex.cleanup"} <= set(registry.tasks)
    assert [(one.name, one.task) for one in declared(registry)] == [("pgreflex.cleanup", "pgreflex.cleanup")]


def test_arguments_of_an_export_are_checked_where_it_is_enqueued() -> None:
    registry = Registry()
    add_builtin(registry, Database(None), Jobs(export_dir=Path("/srv")))
    task = registry.tasks["pgreflex.export"]
    task.check({"path": "a.csv", "name": "orders", "params": [1]})
    with pytest.raises(TaskError, match="does not take these arguments"):
        task.check({"path": "a.csv", "sql": "select 1"})
    with pytest.raises(TaskError, match="does not take these arguments"):
        task.check({"name": "orders"})


def test_an_export_is_declared_once_under_a_name() -> None:
    registry = Registry()
    with filling(registry):
        for _ in range(2):  # a module that is read twice
            pipeline.export("orders", "select 1 as id", order_by="id")
        with pytest.raises(TaskError, match="two exports are named orders"):
            pipeline.export("orders", "select 2 as id")
        for name, query in (("", "select 1"), ("x", " ")):
            with pytest.raises(TaskError, match="a name and a query"):
                pipeline.export(name, query)
    assert registry.exports == {"orders": Export("orders", "select 1 as id", "id")}
