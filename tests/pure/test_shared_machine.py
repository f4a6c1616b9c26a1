"""Whatever the order of writes, deliveries, loads, restarts and rows, no process serves a row that lacks what it
was told of, and none goes back behind what it has served.

The last test proves that the machine can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.core.events import Event
from tests.pure.cache_world import CHANGES, LOADERS, STALE
from tests.pure.machine_kit import run
from tests.pure.shared_bugs import BUGS
from tests.pure.shared_world import KEYS, Node, SharedWorld

picks = st.integers(0, 7)
keys = st.sampled_from(KEYS)
kinds = st.sampled_from(LOADERS)
changes = st.sampled_from(CHANGES)


class SharedMachine(RuleBasedStateMachine):
    """Steps of the world in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SharedWorld()

    def node(self, pick: int) -> Node:
        return self.world.nodes[pick % len(self.world.nodes)]

    @rule(change=changes)
    def write(self, change: Any) -> None:
        self.world.commit(self.world.begin(), [change])

    @rule()
    def begin(self) -> None:
        self.world.begin()

    @precondition(lambda self: self.world.open)
    @rule(change=changes, pick=picks, aborts=st.booleans())
    def end(self, change: Any, pick: int, aborts: bool) -> None:
        xid = list(self.world.open)[pick % len(self.world.open)]
        if aborts:
            self.world.abort(xid)
        else:
            self.world.commit(xid, [change])

    @rule(backwards=st.booleans(), parts=st.booleans(), full=st.sampled_from([False, False, False, True]))
    def pump(self, backwards: bool, parts: bool, full: bool) -> None:
        self.world.pump(backwards=backwards, parts=parts, full=full)

    @rule(pick=picks)
    def hear(self, pick: int) -> None:
        self.world.hear(self.node(pick))

    @rule(pick=picks)
    def prove(self, pick: int) -> None:
        self.pass_time(0.001)
        self.world.prove(self.node(pick))

    @rule(pick=picks)
    def gap(self, pick: int) -> None:
        self.world.begin_anew(self.node(pick))

    @rule(count=st.integers(1, 5))
    def forget(self, count: int) -> None:
        self.world.forget(count)

    @rule(loses=st.booleans())
    def restart(self, loses: bool) -> None:
        self.world.restart(loses=loses)

    @precondition(lambda self: len(self.world.nodes) < 4)
    @rule(proved=st.booleans())
    def start(self, proved: bool) -> None:
        node = self.world.start()
        if proved:
            t0, snapshot = self.world.ask()
            self.world.prove(node)
            node.handed_out.probed(t0, snapshot)

    @rule()
    def open_session(self) -> None:
        self.world.sessions.append(self.world.look())

    @rule(pick=picks, key=keys, kind=kinds, view=picks)
    def load(self, pick: int, key: str, kind: str, view: int) -> None:
        load = self.world.load(self.node(pick), key, kind, view)
        self.world.ask_lower(load)

    @rule(pick=picks, which=picks, ends=st.booleans())
    def read(self, pick: int, which: int, ends: bool) -> None:
        node = self.node(pick)
        if node.loads:
            load = node.loads[which % len(node.loads)]
            self.world.read(load)
            if ends:
                self.world.end(node, load)

    @rule(pick=picks, key=keys, kind=kinds, view=picks, writes=st.booleans())
    def load_at_once(self, pick: int, key: str, kind: str, view: int, writes: bool) -> None:
        node = self.node(pick)
        self.world.end(node, self.world.load(node, key, kind, view))
        if writes:
            self.world.write_rows(node)

    @rule(pick=picks)
    def write_rows(self, pick: int) -> None:
        self.world.write_rows(self.node(pick))

    @rule(pick=picks)
    def raise_rows(self, pick: int) -> None:
        self.world.raise_rows(self.node(pick))

    @rule(pick=picks, key=keys)
    def hit(self, pick: int, key: str) -> None:
        self.world.hit(self.node(pick), key)

    @rule(pick=picks, key=keys)
    def evict(self, pick: int, key: str) -> None:
        self.node(pick).core.store.drop(key, "size")

    @rule(pick=picks)
    def take_all(self, pick: int) -> None:
        for row in list(self.world.rows):
            self.world.take(self.node(pick), row)

    @rule(
        pick=picks,
        key=keys,
        kind=kinds,
        change=changes,
        fate=st.sampled_from(["told", "heard", "lost", "undone"]),
        begins=st.booleans(),
        raises=st.booleans(),
    )
    def life(self, *, pick: int, key: str, kind: str, change: Any, fate: str, begins: bool, raises: bool) -> None:
        """One process shares a value, somebody writes, another process, perhaps a new one, comes upon the row."""
        self.prove(pick)
        if fate == "undone":
            self.write(change)
        self.load_at_once(pick, key, kind, 0, True)
        if fate == "undone":
            self.world.restart(loses=True)
        self.write(change)
        self.world.pump(parts=True, full=fate == "lost")
        if fate == "heard":
            self.world.hear_all(self.node(pick))
        if raises:
            self.world.raise_rows(self.node(pick))
        other = self.world.start() if begins and len(self.world.nodes) < 6 else self.node(pick + 1)
        self.world.prove(other)
        for row in list(self.world.rows):
            self.world.take(other, row)

    @rule(pick=picks, key=keys, change=changes, backwards=st.booleans())
    def between(self, pick: int, key: str, change: Any, backwards: bool) -> None:
        """A row whose snapshot lies between two changes of one round."""
        self.prove(pick)
        self.prove(pick + 1)
        self.write(change)
        self.load_at_once(pick, key, "own", 0, True)
        self.write(change)
        self.world.pump(backwards=backwards)
        self.prove(pick + 1)
        for row in list(self.world.rows):
            self.world.take(self.node(pick + 1), row)

    @rule(pick=picks, key=keys, change=changes, view=st.sampled_from(LOADERS))
    def back_and_forth(self, pick: int, key: str, change: Any, view: str) -> None:
        """A process has a newer value than a row, before it is told of the change; then it loses its own."""
        node, other = self.node(pick), self.node(pick + 1)
        for one in (node, other):
            self.prove(0)
            self.world.prove(one)
        self.world.end(other, self.world.load(other, key, view, 0))
        self.write(change)
        self.pass_time(0.001)
        self.world.end(node, self.world.load(node, key, "own", 0))
        node.core.store.drop(key, "size")
        self.world.write_rows(other)
        for row in list(self.world.rows):
            self.world.take(node, row)

    @rule(pick=picks, key=keys, change=changes)
    def ahead(self, pick: int, key: str, change: Any) -> None:
        """A row contains more than it says; whoever had it comes upon one that says as much and has less."""
        nodes = [self.node(pick + n) for n in range(3)]
        for node in nodes:
            self.pass_time(0.001)
            self.world.prove(node)
        slow = self.world.load(nodes[0], key, "lower", 0)
        self.world.ask_lower(slow)
        self.world.end(nodes[1], self.world.load(nodes[1], key, "own", 0))
        self.write(change)
        self.world.end(nodes[0], slow)
        for node in nodes[:2]:
            self.world.write_rows(node)
        for row in self.world.rows[-2:]:
            self.world.take(nodes[2], row)
            nodes[2].core.store.drop(key, "size")

    @rule(pick=picks, key=keys, change=changes, empty=st.booleans())
    def young(self, pick: int, key: str, change: Any, empty: bool) -> None:
        """A process begins when the feed remembers one change, and its past by a position only; or nothing."""
        self.prove(pick)
        self.load_at_once(pick, key, "own", 0, True)
        self.world.oldest = len(self.world.log) - 1
        self.write(change)
        self.world.pump()
        if empty:
            self.world.oldest = len(self.world.log)
        if len(self.world.nodes) < 6:
            late = self.world.start()
            self.world.prove(late)
            for row in list(self.world.rows):
                self.world.take(late, row)

    @rule(pick=picks, key=keys, change=changes, seconds=st.sampled_from([0.5, 1.1]))
    def unheard(self, pick: int, key: str, change: Any, seconds: float) -> None:
        """A row, and a process that is not told of the change that came after it."""
        self.prove(pick)
        self.prove(pick + 1)
        self.load_at_once(pick, key, "own", 0, True)
        self.write(change)
        self.pass_time(seconds)
        for row in list(self.world.rows):
            self.world.take(self.node(pick + 1), row)

    @rule(seconds=st.sampled_from([0.1, 0.6, 1.1]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def rows_are_true(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Everybody comes upon every row once more."""
        self.world.pass_time(STALE + 0.1)
        for node in self.world.nodes:
            self.world.prove(node)
            for row in self.world.rows:
                self.world.take(node, row)


def test_no_order_of_events_lets_a_row_break_the_promise() -> None:
    run(SharedMachine, 150)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_machine_finds_each_seeded_bug(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match="misses transaction|lacks transaction|goes back behind"):
        run(SharedMachine, 800)


def test_a_process_that_begins_uses_what_was_shared_before_it() -> None:
    world = SharedWorld()
    world.prove(world.nodes[0])
    world.end(world.nodes[0], world.load(world.nodes[0], "row", "unknown", 0))
    world.write_rows(world.nodes[0])
    world.commit(world.begin(), [("u", None)])
    world.pump()
    late = world.start()
    world.prove(late)
    world.take(late, world.rows[0])
    assert world.taken == 1


def test_a_row_older_than_what_the_feed_remembers_is_used_once_it_was_raised() -> None:
    world = SharedWorld()
    node = world.nodes[0]
    world.prove(node)
    world.end(node, world.load(node, "row", "own", 0))
    world.write_rows(node)
    for _round in range(3):
        world.commit(world.begin(), [("u", None)])
        world.pump()
    world.forget(len(world.log) - 1)
    late = world.start()
    world.prove(late)
    world.take(late, world.rows[0])
    assert world.taken == 0
    world.hear_all(node)
    world.raise_rows(node)
    world.take(late, world.rows[-1])
    assert world.taken == 1


@pytest.mark.parametrize("prefix", [None, "t", ""])
def test_what_somebody_here_said_has_changed_is_taken_from_no_row_until_the_feed_tells_of_it(
    prefix: str | None,
) -> None:
    world = SharedWorld()
    core, tags = world.nodes[0].core, frozenset(("t:1",))
    world.prove(world.nodes[0])
    position = world.look().snapshot
    assert core.fence.admits(tags, position)
    for xid in (None, world.begin()):
        assert not core.fence.admits(tags, position) or xid is None
        if prefix is None:
            core.change("t:1", xid, world.now)
        else:
            core.change_prefix(prefix, xid, world.now)
    assert not core.fence.admits(tags, position)
    world.commit(world.next_xid - 1, [])
    assert core.fence.admits(tags, world.look().snapshot)


def test_a_row_that_lacks_what_this_process_wrote_is_refused_before_the_feed_tells_of_it() -> None:
    world = SharedWorld()
    core, tags, others = world.nodes[0].core, frozenset(("t:1",)), frozenset(("t:2",))
    world.prove(world.nodes[0])
    before, xid = world.look().snapshot, world.begin()
    core.committed(core.hold(xid, [Event(xid, "t", "u", ("1",))], world.now))
    world.commit(xid, [])
    assert not core.fence.admits(tags, before)
    assert core.fence.admits(others, before)
    assert core.fence.admits(tags, world.look().snapshot)
