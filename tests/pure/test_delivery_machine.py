"""Telling over any course of events: the receiver ends up with the truth, and hears nothing twice.

The store is a plain one; tests/sql/test_alert_delivery.py plays the same with the one in Postgres.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.core.alert import Life, State
from pipeline.core.alert_flush import Flush, Key, Pace, Told
from pipeline.core.alert_held import Holds, Silence
from pipeline.core.alert_message import members
from pipeline.core.alert_round import Look, Route, plan_round, sort_out
from pipeline.core.alert_rule import Alert

PACE = Pace(interval=30, repeat=600, burst=3, every=20)
RULES, INSTANCES = "abcde", "xy"
NAMES = st.tuples(st.sampled_from(RULES), st.sampled_from(INSTANCES))


class Sent:
    """A notification that is on its way."""

    def __init__(self, flushes: tuple[Flush, ...]) -> None:
        self.groups = {one.group for one in flushes}
        self.reasons = {one.group: one.reason for one in flushes}
        self.members = members(flushes)
        self.heard = False


class Delivery(RuleBasedStateMachine):
    """One channel. believes: what its receiver thinks fires, by what it accepted, each notification once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.episode = 1e9, 0
        self.firing: dict[Key, Alert] = {}
        self.silenced: set[str] = set()
        self.acked: set[tuple[Key, int]] = set()
        self.told: dict[Key, Told] = {}
        self.told_at: dict[str, float] = {}
        self.open: list[Sent] = []
        self.tokens, self.refilled_at = float(PACE.burst), self.now
        self.believes: dict[Key, int] = {}
        self.heard_new: set[tuple[Key, int]] = set()
        self.made = 0

    @rule(name=NAMES, severity=st.sampled_from(["warning", "critical"]))
    def fire(self, name: tuple[str, str], severity: str) -> None:
        key = ("raised", *name)
        if key not in self.firing:
            self.episode += 1
            life = Life(State.FIRING, episode=self.episode)
            self.firing[key] = Alert("raised", *name, life, severity, "x")

    @rule(name=NAMES)
    def end(self, name: tuple[str, str]) -> None:
        self.firing.pop(("raised", *name), None)

    @rule(name=st.sampled_from(RULES))
    def silence(self, name: str) -> None:
        self.silenced ^= {name}

    @rule(name=NAMES)
    def acknowledge(self, name: tuple[str, str]) -> None:
        key = ("raised", *name)
        if key in self.firing:
            self.acked.add((key, self.firing[key].life.episode))

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 31.0, 601.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def round(self) -> None:
        plan = plan_round(self.look(), PACE)
        for flushes in plan.notifications:
            for one in flushes:
                for alert in one.firing:
                    key = (alert.kind, alert.rule, alert.instance)
                    assert alert.rule not in self.silenced
                    assert (key, alert.life.episode) not in self.acked
            self.open.append(Sent(flushes))
        if plan.notifications:
            self.tokens, self.refilled_at = plan.tokens, self.now
        self.made += len(plan.notifications)

    def look(self) -> Look:
        busy = {group for sent in self.open for group in sent.groups}
        holds = Holds([Silence(1, {"rule": name}) for name in self.silenced], (), (), (), self.now)
        free = [
            alert
            for key, alert in self.firing.items()
            if alert.rule not in busy
            and (key, alert.life.episode) not in self.acked
            and sort_out(Route("ops"), holds, alert) == "tell"
        ]
        known = {(key, one.episode): one for key, one in self.told.items()}
        keys = [(alert, known.get((("raised", alert.rule, alert.instance), alert.life.episode))) for alert in free]
        return Look(
            self.now,
            self.tokens,
            self.refilled_at,
            [alert for alert, one in keys if one is None],
            [one for key, one in self.told.items() if key not in self.firing and key[1] not in busy],
            [alert for alert, one in keys if one is not None and self.now >= one.at + PACE.repeat],
            dict(self.told_at),
        )

    @precondition(lambda self: self.open)
    @rule(place=st.integers(0, 9), noted=st.booleans())
    def accept(self, place: int, noted: bool) -> None:
        """The receiver accepts; unless that is noted, the same comes again."""
        sent = self.open[place % len(self.open)]
        if not sent.heard:
            self.hear(sent)
        if noted:
            self.note(sent)

    @precondition(lambda self: self.open)
    @rule(place=st.integers(0, 9))
    def give_up(self, place: int) -> None:
        """It can never be accepted: noted all the same, so that the rest goes on."""
        sent = self.open[place % len(self.open)]
        if not sent.heard:
            self.note(sent)
            for member in sent.members:  # somebody reads the dead letter
                self.learn(member)

    def hear(self, sent: Sent) -> None:
        sent.heard = True
        for member in sent.members:
            key = (str(member["kind"]), str(member["rule"]), str(member["instance"]))
            episode = int(str(member["episode"]))
            if member["change"] == "resolved":
                assert self.believes.get(key) == episode, "an end that nobody waited for"
            elif sent.reasons[key[1]] != "repeat":
                assert (key, episode) not in self.heard_new, "told twice"
                self.heard_new.add((key, episode))
            self.learn(member)

    def learn(self, member: dict[str, object]) -> None:
        key = (str(member["kind"]), str(member["rule"]), str(member["instance"]))
        if member["change"] == "firing":
            self.believes[key] = int(str(member["episode"]))
        else:
            self.believes.pop(key, None)

    def note(self, sent: Sent) -> None:
        self.open.remove(sent)
        for member in sent.members:
            key = (str(member["kind"]), str(member["rule"]), str(member["instance"]))
            episode = int(str(member["episode"]))
            if member["change"] == "firing":
                self.told[key] = Told(key, episode, self.now, str(member["severity"]))
            elif key in self.told and self.told[key].episode == episode:
                del self.told[key]
        self.told_at.update(dict.fromkeys(sent.groups, self.now))

    @invariant()
    def no_group_is_told_twice_at_a_time(self) -> None:
        groups = [group for sent in self.open for group in sent.groups]
        assert len(groups) == len(set(groups))

    @invariant()
    def tokens_bound_the_messages(self) -> None:
        assert self.made <= PACE.burst + (self.now - 1e9) / PACE.every + 1e-6

    def teardown(self) -> None:
        """Once nothing happens any more, the receiver knows what is true."""
        self.silenced.clear()
        for _ in range(20):
            for sent in list(self.open):
                if not sent.heard:
                    self.hear(sent)
                self.note(sent)
            self.now += 61.0
            self.round()
            if not self.open:
                break
        truth = {
            key: alert.life.episode
            for key, alert in self.firing.items()
            if (key, alert.life.episode) not in self.acked or self.believes.get(key) == alert.life.episode
        }
        left = {key: episode for key, episode in self.believes.items() if key not in self.firing}
        assert left == {}, "the receiver was not told of an end"
        acked = {key for key, episode in self.acked if key in self.firing}
        assert {k: e for k, e in self.believes.items() if k not in acked} == {
            k: e for k, e in truth.items() if k not in acked
        }


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
