"""Which arguments are hidden where they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.redact import EVERYTHING, REDACTED, SEALED_TEXT, redact, shown, without
from pipeline.core.seal import SEALED

ARGS = {
    "customer": 7,
    "password": "hunter2",
    "card": {"number": "4111111111111111", "expires": "01/30"},
    "others": [{"number": "5500", "name": "Ada"}, {"number": None}],
}


@pytest.mark.parametrize(
    ("paths", "hidden"),
    [
        ((), {}),
        (("password",), {"password": REDACTED}),
        (("card.number",), {"card": {"number": REDACTED, "expires": "01/30"}}),
        (("card",), {"card": REDACTED}),
        (("card", "card.number"), {"card": REDACTED}),
        (("others.number",), {"others": [{"number": REDACTED, "name": "Ada"}, {"number": REDACTED}]}),
        (("nothing", "card.nothing", "card.number.nothing"),
         {"card": {"number": REDACTED, "expires": "01/30"}}),
        (("customer.number",), {"customer": REDACTED}),
        (EVERYTHING, dict.fromkeys(ARGS, REDACTED)),
    ],
)  # fmt: skip
def test_a_path_hides_what_it_leads_to_and_nothing_else(paths: tuple[str, ...], hidden: dict[str, object]) -> None:
    assert redact(ARGS, paths) == {**ARGS, **hidden}


def test_the_arguments_themselves_stay_as_they_were() -> None:
    args = {"card": {"number": "4111"}, "list": [{"number": "4111"}]}
    redact(args, ("card.number", "list.number"))
    assert args == {"card": {"number": "4111"}, "list": [{"number": "4111"}]}


def test_a_key_that_contains_dots_is_hidden_too() -> None:
    args = {"card.number": "4111", "a.b": {"c": 1}}
    assert redact(args, ("card.number", "a.b.c")) == {"card.number": REDACTED, "a.b": {"c": REDACTED}}


SECRET = "s3cret-value"


@given(
    st.recursive(
        st.just(SECRET) | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner),
        max_leaves=12,
    )
)
def test_below_a_redacted_name_nothing_is_left(value: object) -> None:
    assert redact({"a": value, "b": 1}, ("a",)) == {"a": REDACTED, "b": 1}
    assert SECRET not in str(redact({"x": value}, ("x.a", "x.b", "x.a.b")))
    assert SECRET not in without(f"it was {value!r}", {"x": value}, ("x",))


def test_sealed_arguments_are_shown_as_sealed_whatever_the_paths() -> None:
    assert shown({SEALED: "k:token"}, ("password",)) == SEALED_TEXT
    assert shown({SEALED: "k:token", "order_id": 1}) != SEALED_TEXT


def test_values_whose_names_tell_that_they_are_secret_are_hidden_without_being_declared() -> None:
    told = shown({"api_token": "abc", "url": "postgres://u:p@h/d", "n": 1}, ("n",))
    assert told == {"api_token": "********", "url": "postgres://u:********@h/d", "n": REDACTED}


def test_an_error_that_repeats_a_redacted_value_is_told_without_it() -> None:
    text = "ValueError: no login for 'hunter2' with 4111111111111111 of customer 7"
    assert without(text, ARGS, ("password", "card.number")) == (
        f"ValueError: no login for '{REDACTED}' with {REDACTED} of customer 7"
    )
    assert without(text, ARGS, ()) == text


def test_a_value_is_found_in_its_quoted_form_and_the_longest_goes_first() -> None:
    args = {"a": "line\nbreak", "b": "secret", "c": "secret-and-more"}
    assert without(f"{args['a']!r} secret-and-more", args, EVERYTHING) == f"'{REDACTED}' {REDACTED}"


def test_short_values_and_truth_values_stay_in_errors_or_nothing_could_be_read() -> None:
    assert without("True: 7 is not 12", {"a": True, "b": 7, "c": "is"}, EVERYTHING) == "True: 7 is not 12"
