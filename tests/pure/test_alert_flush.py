"""What a channel is told: when, of whom, and in how many messages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.core.alert import Life, State
from pipeline.core.alert_flush import Flush, Pace, Told, flush, key_of, share_out, tokens_after
from pipeline.core.alert_held import Holds, Inhibition, Maintenance, Silence, is_open
from pipeline.core.alert_match import matches, problem_of
from pipeline.core.alert_message import MOST_ALERTS, MOST_TEXT, members, notification
from pipeline.core.alert_round import SELF_RULE, Look, Route, plan_round, sort_out
from pipeline.core.alert_rule import Alert
from pipeline.core.outgoing import pause_of

NOON = 1_800_000_000.0  # Friday, 2027-01-15, 08:00 UTC
PACE = Pace(interval=30, repeat=3_600, burst=3, every=6)


def alert(
    rule: str = "a", instance: str = "", *, severity: str = "warning", episode: int = 1, **labels: str
) -> Alert:
    life = Life(State.FIRING, episode=episode, fired_at=NOON)
    return Alert("raised", rule, instance, life, severity, f"{rule} is bad", labels=labels)


def told(rule: str = "a", instance: str = "", *, severity: str = "warning", at: float = NOON) -> Told:
    return Told(("raised", rule, instance), 1, at, severity)


A, B = alert("a", "1"), alert("a", "2")
OVER = told("a", "3")


@pytest.mark.parametrize(
    ("new", "over", "due", "since", "reason"),
    [
        ([], [], [], None, None),
        ([A], [], [], None, "new"),
        ([A], [], [], 30, "new"),
        ([A], [], [], 29, None),
        ([A], [OVER], [], None, "new"),
        ([], [OVER], [], 30, "resolved"),
        ([], [OVER], [], 29, "resolved"),
        ([], [], [B], 0, "repeat"),
        ([A], [], [B], 29, None),
        ([A], [], [B], 30, "new"),
    ],
)
def test_a_group_is_told_what_is_new_or_over_and_else_again(
    new: list[Alert], over: list[Told], due: list[Alert], since: float | None, reason: str | None
) -> None:
    """since: seconds since the group was told last."""
    last = None if since is None else NOON - since
    found = flush("a", new=new, over=over, due=due, now=NOON, told_at=last, pace=PACE)
    assert (found and found.reason) == reason
    if found:
        assert found.firing == tuple(due if reason == "repeat" else new)
        assert found.resolved == tuple(over)


def one(group: str, reason: str = "new", severity: str = "warning") -> Flush:
    return Flush(group, reason, (alert(group, severity=severity),), ())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "shares"),
    [
        (0.0, []),
        (0.99, []),
        (1.0, ["dacbe"]),
        (2.9, ["d", "acbe"]),
        (4.0, ["d", "a", "c", "be"]),
        (5.0, ["d", "a", "c", "b", "e"]),
        (99.0, ["d", "a", "c", "b", "e"]),
    ],
)
def test_no_more_messages_than_tokens_and_nobody_is_left_out(tokens: float, shares: list[str]) -> None:
    flushes = [
        one("a", severity="critical"),
        one("b"),
        one("c", severity="critical"),
        Flush("d", "resolved", (), (told("d"),)),
        one("e", "repeat"),
    ]
    assert ["".join(each.group for each in share) for share in share_out(flushes, tokens)] == shares


def test_tokens_come_back_with_time_up_to_the_burst() -> None:
    assert [tokens_after(1.0, seconds, PACE) for seconds in (0, 3, 6, 600, -60)] == [1.0, 1.5, 2.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("matchers", "holds"),
    [
        ({}, True),
        ({"rule": "slow query"}, True),
        ({"rule": "slow*"}, True),
        ({"rule": "*"}, True),
        ({"rule": "*quer*"}, True),
        ({"rule": "slow"}, False),
        ({"rule": "!slow"}, True),
        ({"rule": "!slow*"}, False),
        ({"severity": "critical", "label.region": "eu"}, True),
        ({"severity": "critical", "label.region": "us"}, False),
        ({"label.missing": ""}, True),
        ({"label.missing": "!"}, False),
        ({"label.missing": "*"}, True),
        ({"label.text": "a.b\nc"}, True),
        ({"label.text": "axb\nc"}, False),
        ({"label.text": "a*c"}, True),
        ({"kind": "raised", "instance": "x"}, True),
    ],
)
def test_matchers_match(matchers: dict[str, str], holds: bool) -> None:
    found = alert("slow query", "x", severity="critical", region="eu", text="a.b\nc")
    assert matches(matchers, found) is holds
    assert problem_of(matchers) is None


@pytest.mark.parametrize("matchers", [{"state": "firing"}, {"label.": "x"}, {"rule": 1}, {"": ""}])
def test_matchers_that_cannot_be_meant_are_refused(matchers: dict[str, object]) -> None:
    assert problem_of(matchers)


SLOW, VERY = alert("slow", "q", db="one"), alert("very slow", "q", db="one")


def held(
    found: Alert,
    *,
    silences: Sequence[Silence] = (),
    windows: Sequence[Maintenance] = (),
    inhibitions: Sequence[Inhibition] = (),
    firing: Sequence[Alert] = (),
) -> str:
    return Holds(silences, windows, inhibitions, firing, NOON).why(found)


def test_silences_and_open_windows_hold_back_what_matches() -> None:
    silence = Silence(7, {"rule": "slow"})
    assert held(SLOW, silences=[silence]) == "silence 7"
    assert held(VERY, silences=[silence]) == ""
    window = Maintenance("night", {"label.db": "one"}, "30 7 * * *", 3_600)
    assert held(SLOW, windows=[window]) == "maintenance night"
    assert held(alert(), windows=[window]) == ""


@pytest.mark.parametrize(
    ("cron", "seconds", "zone", "opened"),
    [
        ("0 8 * * *", 60, "UTC", True),
        ("0 9 * * *", 60, "Europe/Berlin", True),
        ("0 8 * * *", 60, "Europe/Berlin", False),
        ("59 7 * * *", 60, "UTC", False),
        ("59 7 * * *", 61, "UTC", True),
        ("1 8 * * *", 3_600, "UTC", False),
        ("0 8 * * 1", 6 * 86_400, "UTC", True),
        ("0 8 * * 1", 86_400, "UTC", False),
        ("nonsense", 3_600, "UTC", False),
    ],
)
def test_a_maintenance_window_is_open_for_its_length(cron: str, seconds: float, zone: str, opened: bool) -> None:
    assert is_open(Maintenance("m", {}, cron, seconds, zone), NOON) is opened


@pytest.mark.parametrize(
    ("source", "target", "equal", "firing", "why"),
    [
        ({"rule": "very slow"}, {"rule": "slow"}, (), [VERY], "inhibition i"),
        ({"rule": "very slow"}, {"rule": "slow"}, ("instance",), [VERY], "inhibition i"),
        ({"rule": "very slow"}, {"rule": "slow"}, ("label.db",), [alert("very slow", db="two")], ""),
        ({"rule": "very slow"}, {"rule": "slow"}, ("label.none",), [VERY], "inhibition i"),
        ({"rule": "very slow"}, {"rule": "slow"}, (), [], ""),
        ({"rule": "very slow"}, {"rule": "other"}, (), [VERY], ""),
        # both sides match both: none may silence the other
        ({"label.db": "one"}, {"label.db": "one"}, (), [SLOW, VERY], ""),
        # a source that is not itself a target may
        ({"label.db": "one"}, {"rule": "slow"}, (), [SLOW, VERY], "inhibition i"),
    ],
)
def test_an_inhibition_holds_back_its_targets_but_never_two_of_a_kind(
    source: dict[str, str], target: dict[str, str], equal: tuple[str, ...], firing: list[Alert], why: str
) -> None:
    assert held(SLOW, inhibitions=[Inhibition("i", source, target, equal)], firing=firing) == why


def test_a_channel_is_told_what_its_route_takes_and_never_of_its_own_failure() -> None:
    nothing = Holds((), (), (), (), NOON)
    route = Route("ops", ({"rule": "a"}, {"severity": "critical"}))
    assert sort_out(route, nothing, alert("a")) == "tell"
    assert sort_out(route, nothing, alert("b", severity="critical")) == "tell"
    assert sort_out(route, nothing, alert("b")) == "pass"
    assert sort_out(route, Holds([Silence(1, {})], (), (), (), NOON), alert("a")) == "hold"
    own, others = alert(SELF_RULE, channel="ops"), alert(SELF_RULE, channel="chat")
    assert sort_out(Route("ops"), nothing, own) == "pass"
    assert sort_out(Route("ops"), nothing, others) == "tell"


def test_a_round_joins_what_is_known_of_each_rule() -> None:
    look = Look(
        NOON,
        1.0,
        NOON - 6,
        [alert("a", "1"), alert("a", "2"), alert("b")],
        [told("a", "3"), told("c")],
        [alert("b", "2"), alert("d")],
        {"b": NOON - 5, "c": NOON - 600},
    )
    plan = plan_round(look, PACE)
    found = [[(each.group, each.reason) for each in share] for share in plan.notifications]
    assert found == [[("c", "resolved")], [("a", "new"), ("d", "repeat")]], "b waits for its interval"
    assert plan.tokens == 0.0
    assert plan_round(Look(NOON, 2.0, NOON, [], [], [], {}), PACE).tokens == 2.0


def test_a_message_names_the_gravest_and_how_many_there_are() -> None:
    firing = tuple(alert("a", f"i{n}", severity="critical" if n == 69 else "warning") for n in range(70))
    said = notification([Flush("a", "new", firing, (OVER,))], at=NOON, runbooks={"a": "http://book", "b": "no"})
    assert (said.status, said.severity, said.firing, said.resolved) == ("firing", "critical", 70, 1)
    assert (len(said.alerts), said.alerts[0].instance) == (MOST_ALERTS, "i69")
    assert said.title == "[critical] a (70)"
    assert said.text.splitlines()[0] == "i69: a is bad"
    assert said.text.endswith("and 21 more\na: http://book")
    known = members([Flush("a", "new", firing, (OVER,))])
    assert (len(known), known[-1]["change"], known[-1]["instance"]) == (71, "resolved", "3")


def test_a_message_stays_short_whatever_is_in_it() -> None:
    flushes = [Flush(f"rule {n}", "new", (alert(f"rule {n}", "x" * 900),), ()) for n in range(500)]
    said = notification(flushes, at=NOON, runbooks={})
    assert (len(said.groups), said.more_groups, said.title) == (MOST_ALERTS, 450, "[warning] 500 rules (500)")
    assert len(said.text) < MOST_TEXT + 100
    assert said.text.endswith(" more")
    huge = Flush("a", "new", (Alert("raised", "a", "", A.life, "info", "y" * 4_000),), ())
    assert notification([huge], at=NOON, runbooks={}).text.startswith("yyy"), "one that is too long is cut"


@pytest.mark.parametrize(
    ("made", "title", "text"),
    [
        (Flush("a", "new", (alert("a"),), ()), "[warning] a", "a is bad"),
        (Flush("a", "repeat", (alert("a", "x"),), ()), "[warning] a (1), still firing", "x: a is bad"),
        (Flush("a", "resolved", (), (told("a", "x"),)), "[resolved] a", "resolved: x"),
        (Flush("a", "resolved", (), (told("a"),)), "[resolved] a", "resolved: a"),
    ],
)
def test_a_message_reads_well(made: Flush, title: str, text: str) -> None:
    said = notification([made], at=NOON, runbooks={})
    assert (said.title, said.text) == (title, text)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("-7", 0.0),
        ("1e9", 3_600.0),
        ("nan", None),
        ("soon", None),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
    ],
)
def test_a_pause_is_asked_for_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert pause_of(header, NOON) == seconds


def test_the_key_of_an_alert_is_its_kind_rule_and_instance() -> None:
    assert key_of(A) == ("raised", "a", "1")
