"""Whatever the order of writes, deliveries, loads, flushes and probes, the cache keeps its promise.

The last test proves that the machine can tell: with each seeded bug it finds a broken promise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.pure.cache_bugs import BUGS
from tests.pure.cache_world import ANNOUNCED, CHANGES, LOADERS, POLICIES, STALE, World
from tests.pure.machine_kit import run

picks = st.integers(0, 7)
changes = st.lists(st.sampled_from(CHANGES), min_size=1, max_size=2)


class CacheMachine(RuleBasedStateMachine):
    """Steps of the world in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(changes=changes)
    def write(self, changes: list[Any]) -> None:
        self.world.commit(self.world.begin(), changes)

    @rule()
    def begin(self) -> None:
        self.world.begin()

    @precondition(lambda self: self.world.others())
    @rule(changes=changes, pick=picks, aborts=st.sampled_from([False, False, False, True]))
    def end(self, changes: list[Any], pick: int, aborts: bool) -> None:
        xid = self.world.others()[pick % len(self.world.others())]
        if aborts:
            self.world.abort(xid)
        else:
            self.world.commit(xid, changes)

    @rule(change=st.sampled_from(CHANGES), key=st.sampled_from(sorted(ANNOUNCED)))
    def write_and_invalidate(self, change: Any, key: str) -> None:
        """Somebody writes and says so; a load and somebody else's write follow before the feed tells of
        either.
        """
        self.write([change])
        name, keys = change
        if name.startswith("~"):
            self.world.core.change_prefix(name[1:], None, self.world.now)
        else:
            self.world.core.change(name if keys is None else f"{name}:{keys[0]}", None, self.world.now)
        self.load_at_once(key, "own", 0)
        self.write([change])

    @rule(backwards=st.booleans(), deliver=st.booleans())
    def pump(self, backwards: bool, deliver: bool) -> None:
        self.world.pump(backwards=backwards)
        while deliver and self.world.wire:
            self.world.deliver()

    @rule()
    def deliver(self) -> None:
        self.world.deliver()

    @rule()
    def deliver_again(self) -> None:
        self.world.again()

    @rule(epoch=st.booleans())
    def gap(self, epoch: bool) -> None:
        self.world.gap(epoch=epoch)

    @rule()
    def down(self) -> None:
        self.world.core.on_down()

    @rule()
    def prove(self) -> None:
        """A probe and a round of the feed, as they come when all is well."""
        self.world.answer(self.world.ask())
        self.world.pump()
        while self.world.wire:
            self.world.deliver()

    @rule()
    def ask(self) -> None:
        self.world.probes.append(self.world.ask())

    @precondition(lambda self: self.world.probes)
    @rule()
    def answer(self) -> None:
        self.world.answer(self.world.probes.pop(0))

    @rule()
    def open_session(self) -> None:
        self.world.sessions.append(self.world.look())

    @rule(
        key=st.sampled_from(sorted(ANNOUNCED)),
        kind=st.sampled_from(LOADERS),
        pick=picks,
        strict=st.sampled_from([False, False, True]),
    )
    def request(self, key: str, kind: str, pick: int, strict: bool = False) -> None:
        self.world.request(key, kind, self.world.sessions[pick % len(self.world.sessions)], strict=strict)

    @rule(
        key=st.sampled_from(sorted(POLICIES)),
        change=st.sampled_from(CHANGES),
        late=st.sampled_from([0.0, 1.5]),
        pause=st.sampled_from([0.1, 0.6]),
        fate=st.sampled_from(["delivered", "lost", "not yet"]),
        proved=st.booleans(),
        strict=st.sampled_from([False, False, True]),
    )
    def goes_stale(
        self, *, key: str, change: Any, late: float, pause: float, fate: str, proved: bool, strict: bool
    ) -> None:
        """A value that may be served stale changes, the change is late, and somebody asks after a while."""
        self.prove()
        self.load_at_once(key, "own", 0)
        self.write([change])
        self.world.pass_time(late)
        if fate != "not yet":
            self.world.pump()
        if fate == "lost":
            self.world.gap(epoch=False)
            self.world.pump()
        while self.world.wire:
            self.world.deliver()
        if proved and fate != "not yet":
            self.prove()
        self.world.pass_time(pause)
        self.request(key, "unknown", 0, strict)

    @precondition(lambda self: self.world.loads)
    @rule(pick=picks, lower=st.booleans())
    def read(self, pick: int, lower: bool) -> None:
        load = self.world.loads[pick % len(self.world.loads)]
        if lower:
            self.world.ask_lower(load)
        else:
            self.world.read(load)

    @precondition(lambda self: self.world.loads)
    @rule(pick=picks)
    def finish(self, pick: int) -> None:
        self.world.finish(self.world.loads[pick % len(self.world.loads)])

    @rule(key=st.sampled_from(sorted(ANNOUNCED)), kind=st.sampled_from(LOADERS), pick=picks)
    def load_at_once(self, key: str, kind: str, pick: int) -> None:
        count = len(self.world.loads)
        self.request(key, kind, pick)
        if len(self.world.loads) > count:
            self.world.finish(self.world.loads[-1])

    @rule(key=st.sampled_from(sorted(ANNOUNCED)), change=st.sampled_from(CHANGES))
    def share_an_old_transaction(self, key: str, change: Any) -> None:
        """Two ask at once, the first within a transaction that is older than a change nobody has heard of."""
        self.open_session()
        self.write([change])
        self.world.pass_time(STALE + 0.3)
        for _ in range(2):
            self.request(key, "session", -1)
        if self.world.loads:
            self.world.finish(self.world.loads[-1])

    @rule(
        key=st.sampled_from(sorted(ANNOUNCED)),
        kind=st.sampled_from(LOADERS),
        pick=picks,
        change=st.sampled_from(CHANGES),
        fate=st.sampled_from(["delivered", "lost", "new epoch", "not yet"]),
        pause=st.sampled_from([None, 0.0, 1.1]),
        proved=st.booleans(),
        ends=st.booleans(),
    )
    def race(
        self,
        *,
        key: str,
        kind: str,
        pick: int,
        change: Any,
        fate: str,
        pause: float | None,
        proved: bool,
        ends: bool,
    ) -> None:
        """A load reads, somebody writes, the change fares somehow, somebody else comes; the load ends
        some time.
        """
        if proved:
            self.prove()
        self.request(key, kind, pick)
        for load in self.world.loads:
            self.world.read(load)
        self.write([change])
        if fate != "not yet":
            self.world.pump()
        if fate in ("lost", "new epoch"):
            self.world.gap(epoch=fate == "new epoch")
            self.world.pump()
        while self.world.wire:
            self.world.deliver()
        if ends and self.world.loads:
            self.world.finish(self.world.loads[-1])
        if pause is not None:
            self.world.pass_time(pause)
            self.request(key, kind, pick)

    @rule(
        key=st.sampled_from(sorted(ANNOUNCED.keys() - POLICIES)),
        kind=st.sampled_from(LOADERS),
        change=st.sampled_from(CHANGES),
        deliver=st.booleans(),
        pause=st.sampled_from([0.0, 1.1]),
    )
    def crowd(self, key: str, kind: str, change: Any, deliver: bool, pause: float) -> None:
        """Several requests for one key, a change between them, and all of them end."""
        self.prove()
        self.request(key, kind, 0)
        for load in self.world.loads:
            self.world.read(load)
        self.write([change])
        if deliver:
            self.pump(backwards=False, deliver=True)
        self.world.pass_time(pause)
        self.request(key, kind, 0)
        for load in list(self.world.loads):
            self.world.finish(load)

    @rule(change=st.sampled_from(CHANGES), key=st.sampled_from(sorted(ANNOUNCED)))
    def slow_writer(self, change: Any, key: str) -> None:
        """A transaction that runs while others begin and end, a value is stored and the feed goes on."""
        xid = self.world.begin()
        self.write([change])
        self.prove()
        self.load_at_once(key, "own", 0)
        self.world.commit(xid, [change])
        self.world.pass_time(0.1)
        self.world.answer(self.world.ask())

    @rule(change=st.sampled_from(CHANGES))
    def slow_probe(self, change: Any) -> None:
        """An answer, or the position that covers it, comes long after the question."""
        probe = self.world.ask()
        self.world.pump()
        self.write([change])
        self.world.pass_time(0.6)
        self.world.answer(probe)
        while self.world.wire:
            self.world.deliver()

    @rule(change=st.sampled_from(CHANGES), key=st.sampled_from(sorted(ANNOUNCED)), backwards=st.booleans())
    def old_session(self, change: Any, key: str, backwards: bool) -> None:
        """A session whose snapshot lies between two changes that are delivered together, in either order."""
        self.write([change])
        self.open_session()
        self.write([change])
        self.pump(backwards=backwards, deliver=True)
        self.load_at_once(key, "session", len(self.world.sessions) - 1)

    @rule(seconds=st.sampled_from([0.1, 0.6, 1.1]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Whatever is left in the cache is asked for once more, after time has passed and with a new
        proof.
        """
        world = self.world
        for load in list(world.loads):
            world.finish(load)
            world.check()
        world.pass_time(STALE + 0.1)
        self.prove()
        for key in ANNOUNCED:
            world.request(key, "unknown", world.sessions[0])


def test_no_order_of_events_breaks_the_promise() -> None:
    run(CacheMachine, 150)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_machine_finds_each_seeded_bug(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match="misses transaction"):
        run(CacheMachine, 2_500)  # each is found within some hundreds
