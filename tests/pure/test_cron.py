"""When cron expressions are due, in time zones and over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.cron import Cron, parse
from pipeline.errors import TaskError

BERLIN = "Europe/Berlin"
# the last two change by half an hour, and by a whole day at the end of 2011
ZONES = [
    "UTC",
    BERLIN,
    "America/New_York",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
]
SPRING = "2026-03-29"  # 02:00 to 03:00 is skipped in Berlin
AUTUMN = "2026-10-25"  # 02:00 to 03:00 comes twice in Berlin


def unix(text: str, zone: str = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def shown(times: list[int], zone: str = BERLIN) -> list[str]:
    return [datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for at in times]


def first(cron: str, after: str, count: int, zone: str = BERLIN) -> list[str]:
    return shown(list(islice(parse(cron, zone).after(unix(after, zone)), count)), zone)


def test_a_daily_job_in_the_gap_of_spring_runs_once_when_the_gap_is_over() -> None:
    assert first("30 2 * * *", "2026-03-28 00:00", 3) == [
        "03-28 02:30+0100",
        "03-29 03:00+0200",
        "03-30 02:30+0200",
    ]


def test_a_daily_job_in_the_hour_that_comes_twice_runs_the_first_time_only() -> None:
    assert first("30 2 * * *", "2026-10-24 00:00", 3) == [
        "10-24 02:30+0200",
        "10-25 02:30+0200",
        "10-26 02:30+0100",
    ]


def test_looking_from_within_the_second_pass_does_not_go_back_to_the_first() -> None:
    cron = parse("50 2 * * *", BERLIN)
    second_pass = unix(f"{AUTUMN} 02:50") + 3600 - 300
    assert shown([cron.next(second_pass)]) == ["10-26 02:50+0100"]


def test_entries_that_meet_at_the_end_of_the_gap_are_one_run() -> None:
    assert first("0,30 2,3 * * *", "2026-03-29 00:00", 3) == [
        "03-29 03:00+0200", "03-29 03:30+0200", "03-30 02:00+0200",
    ]  # fmt: skip


def test_an_hourly_job_follows_the_clock_on_the_wall() -> None:
    assert first("0 * * * *", f"{SPRING} 00:30", 3) == ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"]
    assert first("0 * * * *", f"{AUTUMN} 01:30", 4) == [
        "10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100", "10-25 04:00+0100",
    ]  # fmt: skip


def test_a_star_in_the_minute_repeats_the_repeated_hour_and_has_none_in_the_gap() -> None:
    assert first("*/30 2 * * *", f"{SPRING} 00:00", 1) == ["03-30 02:00+0200"]
    assert first("*/30 2 * * *", f"{AUTUMN} 02:10", 4) == [
        "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-26 02:00+0100",
    ]  # fmt: skip


def test_a_change_by_half_an_hour_is_followed_too() -> None:
    # Lord Howe goes from +11 to +10:30 at 02:00 on 5 April 2026: 01:30 to 02:00 comes twice
    assert first("*/30 1,3 * * *", "2026-04-05 00:59", 5, "Australia/Lord_Howe") == [
        "04-05 01:00+1100", "04-05 01:30+1100", "04-05 01:30+1030", "04-05 03:00+1030", "04-05 03:30+1030",
    ]  # fmt: skip


def test_a_day_that_a_zone_left_out_is_made_up_for_at_its_end() -> None:
    assert first("0 12 30 12 *", "2011-12-01 00:00", 1, "Pacific/Apia") == ["12-31 00:00+1400"]


def test_intervals_are_anchored_at_the_epoch() -> None:
    assert list(islice(parse("every 30s").after(100.5), 3)) == [120, 150, 180]
    assert parse("every 5m").next(300) == 600
    assert parse("Every  2h", BERLIN).next(0) == 7200
    assert parse("every 1d").next(86399.9) == 86400


@pytest.mark.parametrize(
    ("name", "fields"), [("@daily", "0 0 * * *"), ("@HOURLY", "0 * * * *"), ("@weekly", "0 0 * * SUN")]
)
def test_names_stand_for_fields(name: str, fields: str) -> None:
    assert list(islice(parse(name, BERLIN).after(0), 50)) == list(islice(parse(fields, BERLIN).after(0), 50))


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
        "a * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "* * */20 * 1L", "@reboot", "every 0s", "every 5", "every 1.5h",
        "every 400d", "5-1 * * * *", "*/0 * * * *", "0 0 LW/2,L * 1L/2", f"{'9' * 5000} * * * *", "\u0663 * * * *",
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_never_happens_is_refused_with_an_explanation(text: str) -> None:
    with pytest.raises(TaskError) as caught:
        parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "europe/berlin ", "\0"]
)
def test_an_unknown_zone_is_refused_with_an_explanation(zone: str) -> None:
    with pytest.raises(TaskError, match="time zone"):
        parse("@daily", zone)


def minutes(draw: st.DrawFn, low: int, high: int) -> str:
    kind = draw(st.sampled_from(["star", "step", "list", "range"]))
    if kind == "star":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, high))}"
    if kind == "list":
        return ",".join(map(str, draw(st.lists(st.integers(low, high), min_size=1, max_size=3))))
    begin = draw(st.integers(low, high))
    return f"{begin}-{draw(st.integers(begin, high))}"


@st.composite
def expressions(draw: st.DrawFn) -> str:
    day = draw(st.sampled_from(["*", "*", "1-28", "*/2", "15"]))
    return f"{minutes(draw, 0, 59)} {minutes(draw, 0, 23)} {day} * {minutes(draw, 0, 6)}"


def values(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        body, _, step = term.partition("/")
        begin, _, end = (f"{low}-{high}" if body == "*" else body).partition("-")
        found |= set(range(int(begin), int(end or begin) + 1, int(step or 1)))
    return found


def expected(text: str, zone: str, start: int, end: int) -> list[int]:
    """The same rule, told the other way round: by looking at each minute that passes."""
    fields = text.split()
    minute, hour, day, _, week = (
        values(field, *bounds)
        for field, bounds in zip(fields, [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)], strict=True)
    )
    both = fields[2].startswith("*") or fields[4].startswith("*")
    week |= {0} if 7 in week else set()

    def fits(wall: datetime) -> bool:
        days = [wall.day in day, wall.isoweekday() % 7 in week]
        return wall.minute in minute and wall.hour in hour and (all(days) if both else any(days))

    def wall_of(at: int) -> datetime:
        return datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None)

    fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
    found = []
    newest = wall_of(start - 172_800)  # the latest time that the clock has ever shown
    for at in range(start - 172_800, end, 60):
        wall = wall_of(at)
        if not fixed:
            due = fits(wall)
        else:  # every minute that is new, or was left out just before; none that was shown already
            new = max(int((wall - newest).total_seconds()) // 60, 0)
            due = any(fits(wall - timedelta(minutes=m)) for m in range(new))
        newest = max(newest, wall)
        if due and at > start:
            found.append(at)
    return found


CHANGES = {
    "UTC": 1_774_700_000, BERLIN: 1_774_746_000, "America/New_York": 1_772_953_200, "Africa/Cairo": 1_777_000_000,
    "Asia/Kathmandu": 1_774_700_000, "Australia/Lord_Howe": 1_775_314_800, "Pacific/Apia": 1_325_239_200,
}  # fmt: skip


@settings(deadline=None)
@given(expressions(), st.sampled_from(ZONES), st.integers(-2_000, 2_000), st.booleans())
@example("30 2 * * *", BERLIN, -1440, False)
@example("0,30 2,3 * * *", BERLIN, -60, True)
@example("*/20 1,2 * * *", BERLIN, -60, True)
@example("0,59 2 * * *", BERLIN, -60, True)
def test_the_times_are_those_that_the_rule_tells(text: str, zone: str, offset: int, autumn: bool) -> None:
    half_a_year = 18_144_000 if zone == BERLIN and autumn else 0
    start = (CHANGES[zone] + half_a_year) // 60 * 60 + offset * 60
    end = start + 2 * 86400
    cron = parse(text, zone)
    assert list(cron.between(start, end - 60)) == expected(text, zone, start, end)


@settings(deadline=None)
@given(expressions(), st.sampled_from(ZONES), st.lists(st.integers(0, 400_000), min_size=2, max_size=9))
def test_looking_often_finds_what_looking_once_does(text: str, zone: str, moments: list[int]) -> None:
    cron = parse(text, zone)
    stops = sorted(CHANGES[zone] - 200_000 + moment for moment in moments)
    stepwise = [at for after, until in pairwise(stops) for at in cron.between(after, until)]
    assert stepwise == list(cron.between(stops[0], stops[-1]))


@settings(deadline=None)
@given(st.sampled_from(["* * * * *", "0 3 * * *", "0 0 1 1 *", "every 7s", "0 0 29 2 *"]), st.integers(1, 200))
def test_the_newest_times_are_the_end_of_all_times(text: str, most: int) -> None:
    cron, until = parse(text), 1_700_000_000
    every: Cron = parse("every 7s")
    span = 100_000 if cron.text in (every.text, "* * * * *") else 100_000_000
    assert cron.newest(until - span, until, most) == list(cron.between(until - span, until))[-most:]


def test_times_are_whole_seconds_later_than_the_moment() -> None:
    now = datetime.now(UTC).timestamp()
    assert all(now < at == int(at) for at in islice(parse("*/7 * * * *", BERLIN).after(now), 100))
