"""A rule over time, at random: windows with and without data, evaluators that come, go, repeat and come late."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.core.alert import Policy, State
from pipeline.core.alert_metric import Reading
from pipeline.core.alert_rule import Alert, Look, Rule, due_windows, judge_window

SECONDS, GRACE = 5, 2


class Evaluation(RuleBasedStateMachine):
    """Windows pass; whoever evaluates judges all that is due from what is stored, and stores what came of it.

    The model sees each window once: one that has data as it is, a silent one only if it was judged in time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.values: dict[int, float | None] = {}
        self.stored = b"{}"
        self.judged_until = 0.0
        self.told: list[tuple[str, int]] = []
        self.firing = False
        self.bad = self.good = self.silent = 0
        self.wanted: list[str] = []
        self.seen: list[int] = []

    @initialize(need=st.integers(1, 3), keep=st.integers(1, 3), hold=st.integers(1, 3))
    def make(self, need: int, keep: int, hold: int) -> None:
        self.policy = Policy(need, keep, hold)
        self.rule = Rule(
            id=1, name="r", metric="latency.p95", seconds=SECONDS, min_samples=1, severity="info",
            message="{value}", revision="1", threshold=5.0, policy=self.policy,
        )  # fmt: skip

    @rule(value=st.sampled_from([9.0, 9.0, 0.0, None]))
    def pass_a_window(self, value: float | None) -> None:
        self.values[self.now] = value
        self.now += SECONDS

    @rule()
    def evaluate(self) -> None:
        """By an evaluator that knows nothing but what is stored."""
        windows = due_windows(self.judged_until, self.now + GRACE, seconds=SECONDS, grace=GRACE, keep=1_000_000.0)
        for start in windows:
            alerts = msgspec.json.decode(self.stored, type=dict[str, Alert])
            value = self.values[start]
            readings = [] if value is None else [Reading("a", value)]
            late = start != windows[-1]
            judged, _ = judge_window(self.rule, alerts, Look(start, readings, late=late))
            for one in judged:
                alerts[one.alert.instance] = one.alert
                if one.change:
                    self.told.append((one.change, one.alert.life.episode))
            kept = {name: alert for name, alert in alerts.items() if alert.life.state is not State.INACTIVE}
            self.stored = msgspec.json.encode(kept)
            self.judged_until = float(start + SECONDS)
            self.seen.append(start)
            if value is not None or not late:
                self.count(value)

    def count(self, value: float | None) -> None:
        if value is None:
            self.silent += 1
            if not self.firing and self.silent >= self.policy.hold_max:
                self.bad = 0
            return
        self.silent = 0
        self.bad, self.good = (self.bad + 1, 0) if value > 5 else (0, self.good + 1)
        if not self.firing and self.bad >= self.policy.need:
            self.firing = True
            self.wanted.append("firing")
        elif self.firing and self.good >= self.policy.keep_firing:
            self.firing, self.bad = False, 0
            self.wanted.append("resolved")

    @invariant()
    def what_is_told_is_what_the_windows_say(self) -> None:
        assert [change for change, _ in self.told] == self.wanted

    @invariant()
    def every_window_is_judged_once_and_in_order(self) -> None:
        assert self.seen == sorted(set(self.seen))

    @invariant()
    def an_episode_is_told_at_most_once_each_way(self) -> None:
        assert len(set(self.told)) == len(self.told)


TestEvaluation = Evaluation.TestCase
TestEvaluation.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
