"""The filter language of jobs, and spans of time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.job_filter import ENDED, FIELDS, LIVE, JobFilter, parse_filter
from pipeline.core.span import parse_span, show_span
from pipeline.errors import UsageError


def test_an_empty_filter_means_every_job() -> None:
    wanted = parse_filter("  ")
    assert wanted == JobFilter()
    assert (wanted.live_states, wanted.ended_states) == ((), ())


def test_every_field_is_read() -> None:
    wanted = parse_filter(
        'state:failed,expired queue:mail task:shop.* key:customer:7 since:1h30m error:"no \\"route"'
    )
    assert wanted == JobFilter(
        states=("failed", "expired"),
        queues=("mail",),
        tasks=("shop.%",),
        keys=("customer:7",),
        error='no "route',
        since=5400.0,
    )
    assert wanted.live_states is None
    assert wanted.ended_states == ("failed", "expired")


def test_a_field_given_twice_means_either_value() -> None:
    assert parse_filter("queue:a queue:b,c state:ready state:failed").queues == ("a", "b", "c")
    both = parse_filter("state:ready state:failed")
    assert (both.live_states, both.ended_states) == (("ready",), ("failed",))


def test_what_like_would_read_as_a_pattern_stands_for_itself() -> None:
    assert parse_filter(r"task:a_b%c\d*").tasks == (r"a\_b\%c\\d%",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stat:failed", ("no field 'stat'", "state", *FIELDS)),
        ("mail", ("'mail'", "no field", *FIELDS)),
        ('"mail"', ("no field", "queue:mail")),
        ("state:", ("state has no value",)),
        ('error:""', ("error has no value",)),
        ('error:"open', ("error", "value")),
        ("state:faild", ("no state 'faild'", "failed", *LIVE, *ENDED)),
        ("since:yesterday", ("yesterday", "2h")),
        ("since:1h since:2h", ("since", "once")),
        (":x", ("no field ''",)),
    ],
)
def test_a_mistake_is_explained(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        parse_filter(text)
    told = f"{refused.value.message} {refused.value.hint}"
    for word in words:
        assert word in told


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_filter(text) == parse_filter(f" {text}\n")


def test_a_verb_takes_only_states_that_it_can_change() -> None:
    assert parse_filter("queue:a").limited_to(("failed", "expired"), ("failed",), "retried").states == ("failed",)
    assert parse_filter("state:expired").limited_to(("failed", "expired"), (), "retried").states == ("expired",)
    with pytest.raises(UsageError, match="jobs that are finished cannot be retried"):
        parse_filter("state:failed,finished").limited_to(("failed",), (), "retried")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h30m", 5400), ("2d", 172_800), ("0", 0)]
)
def test_a_span_is_seconds(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "5x", "m", "-5m", "1h 30m", "٣s", "9" * 20, "1_0s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s, 5m, 1h30m or 2d"):
        parse_span(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "0.2s"),
        (7, "7s"),
        (59.9, "59s"),
        (250, "4m 10s"),
        (3600, "1h"),
        (183_600, "2d 3h"),
        (86_405, "1d"),
    ],
)
def test_a_span_is_shown_by_its_two_largest_units(seconds: float, text: str) -> None:
    assert show_span(seconds) == text
