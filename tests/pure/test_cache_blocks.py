"""Whatever the order of things, a process sees its own writes at once, and a block of reads sees one state.

The last test proves that the machine can tell: with each seeded bug it finds a broken promise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.pure.cache_blocks import BUGS, BlocksWorld
from tests.pure.cache_world import ANNOUNCED, CHANGES, LOADERS
from tests.pure.machine_kit import run
from tests.pure.test_cache_machine import CacheMachine, changes, picks

keys = st.sampled_from(sorted(ANNOUNCED))
often = st.sampled_from([True, True, False])


class BlocksMachine(CacheMachine):
    """The steps of the world, and those of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.world: BlocksWorld = BlocksWorld()

    @rule(changes=changes, named=often)
    def tell(self, changes: list[Any], named: bool) -> None:
        self.world.tell(changes, named=named)

    @precondition(lambda self: self.world.mine)
    @rule(pick=picks, acknowledged=often, commits=often)
    def end_mine(self, pick: int, acknowledged: bool, commits: bool) -> None:
        own = self.world.mine[pick % len(self.world.mine)]
        if commits:
            self.world.commit_mine(own, acknowledged=acknowledged)
        else:
            self.world.abort_mine(own, acknowledged=acknowledged)

    @rule(
        change=st.sampled_from(CHANGES),
        key=keys,
        kind=st.sampled_from(LOADERS),
        others=st.sampled_from(["", "pump", "many", "load"]),
        acknowledged=often,
        joins=st.booleans(),
        pumped=st.booleans(),
    )
    def write_of_my_own(
        self, *, change: Any, key: str, kind: str, others: str, acknowledged: bool, joins: bool, pumped: bool
    ) -> None:
        """A load reads while a transaction of this process is about to commit; others come after the commit."""
        self.prove()
        self.load_at_once(key, "own", 0)
        self.open_session()
        self.world.tell([change], named=True)
        self.request(key, kind, len(self.world.sessions) - 1)
        for load in self.world.loads:
            self.world.read(load)
        if others == "pump":
            self.prove()
        elif others == "many":
            for _ in range(5):  # more than a slot of the fence keeps
                self.write([change])
            self.prove()
        self.world.commit_mine(self.world.mine[-1], acknowledged=acknowledged)
        if others == "load":
            self.load_at_once(key, "session", len(self.world.sessions) - 1)
        if joins:
            self.request(key, kind, 0)
        if pumped:
            self.pump(backwards=False, deliver=True)
        for load in list(self.world.loads):
            self.world.finish(load)
        self.request(key, "own", 0)

    @rule(kind=st.sampled_from(LOADERS), acknowledged=st.booleans(), before=st.booleans())
    def late_to_tell(self, *, kind: str, acknowledged: bool, before: bool) -> None:
        """A load tells only at its end that it depends on what was written; somebody joins it after the commit."""
        self.prove()
        if before:
            self.request("late", kind, 0)
        self.world.tell([("t", ("1",))], named=True)
        self.request("late", kind, 0)
        for load in self.world.loads:
            self.world.read(load)
        self.world.commit_mine(self.world.mine[-1], acknowledged=acknowledged)
        self.request("late", kind, 0)
        self.pump(backwards=False, deliver=True)
        for load in list(self.world.loads):
            self.world.finish(load)

    @rule()
    def open_block(self) -> None:
        self.world.open_block()

    @precondition(lambda self: self.world.blocks)
    @rule(pick=picks)
    def close_block(self, pick: int) -> None:
        self.world.close_block(self.world.blocks[pick % len(self.world.blocks)])

    @precondition(lambda self: self.world.blocks)
    @rule(pick=picks, key=keys)
    def read_in(self, pick: int, key: str) -> None:
        self.world.read_in(self.world.blocks[pick % len(self.world.blocks)], key)

    @rule(
        change=st.sampled_from(CHANGES),
        key=keys,
        kind=st.sampled_from(LOADERS),
        before=st.sampled_from(["", "write", "slow", "ends"]),
        after=st.sampled_from(["", "write", "load"]),
        warm=st.booleans(),
    )
    def block(self, *, change: Any, key: str, kind: str, before: str, after: str, warm: bool) -> None:
        """A warm cache, a change that the feed may not have told, the snapshot, another change, a load; reads."""
        slow = self.world.begin() if before == "ends" else None
        self.write([("u", None)])  # so that the slow one is below the newest
        if before == "slow":
            self.world.begin()
        self.prove()
        for one in ANNOUNCED:
            self.load_at_once(one, "own", 0)
        if not warm:  # only what the change does not touch is there
            self.write([change])
            self.pump(backwards=False, deliver=True)
        if after == "load":
            self.request(key, kind, 0)
            for load in self.world.loads:
                self.world.ask_lower(load)
        self.world.open_block()
        if before == "write":
            self.write([change])
        if slow is not None:
            self.world.commit(slow, [change])
        self.world.place_block(self.world.blocks[-1])
        if after:
            self.write([change])
        if after == "load":
            self.load_at_once(key, kind, 0)
            for load in list(self.world.loads):
                self.world.finish(load)
        for one in ANNOUNCED:
            self.world.read_in(self.world.blocks[-1], one)


def test_no_order_of_events_hides_an_own_write_or_tears_a_block() -> None:
    run(BlocksMachine, 150)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_machine_finds_each_seeded_bug_of_blocks(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match="misses transaction"):
        run(BlocksMachine, 800)
