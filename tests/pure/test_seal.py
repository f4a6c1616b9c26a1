"""Sealed arguments: what opens them, and what does not."""

from __future__ import annotations

import base64
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.seal import SEALED, Sealer, _Box, is_sealed, key_of
from pipeline.errors import KeyMissing, TaskError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
ARGS = {"customer": 7, "card": {"number": "4111111111111111"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def sealer(*keys: bytes) -> Sealer:
    return Sealer(keys, os.urandom)


def seal(with_: Sealer, task: str, args: dict[str, object] = ARGS) -> dict[str, str]:
    return msgspec.json.decode(with_.seal(task, msgspec.json.encode(args)), type=dict[str, str])


@pytest.mark.parametrize(
    ("key", "bound", "expected"),
    [
        (b"\x01", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03", b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_cipher_gives_what_its_specification_does(key: bytes, bound: bytes, expected: str) -> None:
    sealed = _Box(key * 32).encrypt(b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", bound)
    assert sealed.hex() == expected


@given(st.dictionaries(st.text(), JSON))
def test_what_was_sealed_opens_to_the_same(args: dict[str, object]) -> None:
    sealed = seal(sealer(NEW), "shop.pay", args)
    assert is_sealed(sealed)
    assert sealer(NEW).open("shop.pay", sealed) == args


def test_nothing_of_the_arguments_and_nothing_of_the_key_can_be_read_in_the_token() -> None:
    text = seal(sealer(NEW), "shop.pay", ARGS)[SEALED]
    told = base64.urlsafe_b64decode(text.partition(":")[2])
    assert b"4111" not in told
    assert "4111" not in text
    assert NEW.hex()[:12] not in text
    assert base64.urlsafe_b64encode(NEW).decode()[:12] not in text


def test_the_same_arguments_never_look_the_same() -> None:
    one = sealer(NEW)
    assert len({seal(one, "shop.pay")[SEALED] for _ in range(100)}) == 100


def test_all_of_the_nonce_comes_from_chance() -> None:
    asked = []

    def chance(n: int) -> bytes:
        asked.append(n)
        return bytes(n)

    assert seal(Sealer([NEW], chance), "t") == seal(Sealer([NEW], chance), "t")
    assert asked == [24, 24]


def test_the_first_key_seals_and_every_key_opens() -> None:
    before, after = sealer(OLD), sealer(NEW, OLD)
    assert after.open("t", seal(before, "t", ARGS)) == ARGS
    assert sealer(NEW).open("t", seal(after, "t", ARGS)) == ARGS
    assert sealer(OLD, NEW).open("t", seal(after, "t", ARGS)) == ARGS


@pytest.mark.parametrize("keys", [(), (OLD,)])
def test_a_key_that_is_not_here_is_said_to_be_missing_and_named_by_its_id(keys: tuple[bytes, ...]) -> None:
    sealed = seal(sealer(NEW), "shop.pay", ARGS)
    with pytest.raises(KeyMissing, match=r"shop\.pay") as caught:
        sealer(*keys).open("shop.pay", sealed)
    assert sealed[SEALED].partition(":")[0] in caught.value.message
    assert "jobs.encryption_keys" in caught.value.hint


def test_a_token_that_was_moved_to_another_task_does_not_open() -> None:
    with pytest.raises(TaskError, match="do not open"):
        sealer(NEW).open("shop.refund", seal(sealer(NEW), "shop.pay", ARGS))


def test_a_token_that_was_changed_anywhere_does_not_open() -> None:
    id_, _, text = seal(sealer(NEW), "t", ARGS)[SEALED].partition(":")
    token = base64.urlsafe_b64decode(text)
    for at in range(len(token)):
        changed = bytearray(token)
        changed[at] ^= 1
        with pytest.raises(TaskError, match="do not open"):
            sealer(NEW).open("t", {SEALED: f"{id_}:{base64.urlsafe_b64encode(changed).decode()}"})


@pytest.mark.parametrize("text", ["", "A", "AAAA", "é", "A" * 40, "A" * 400])
def test_a_token_that_is_none_does_not_open(text: str) -> None:
    id_ = seal(sealer(NEW), "t", {})[SEALED].partition(":")[0]
    with pytest.raises(TaskError, match="do not open"):
        sealer(NEW).open("t", {SEALED: f"{id_}:{text}"})


@pytest.mark.parametrize("args", [{}, ARGS, {SEALED: 1}, {SEALED: "a:b", "order_id": 1}])
def test_what_was_not_sealed_is_passed_on(args: dict[str, object]) -> None:
    assert not is_sealed(args)
    assert sealer().open("t", args) == args


def test_without_a_key_nothing_is_sealed_and_the_message_says_what_to_set() -> None:
    with pytest.raises(TaskError, match=r"shop\.pay wants its arguments encrypted") as caught:
        seal(sealer(), "shop.pay")
    assert "openssl rand -base64 32" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        NEW.hex(),
        NEW.hex().upper(),
        base64.b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode(),
        base64.b64encode(NEW).decode().rstrip("="),
        f" {base64.b64encode(NEW).decode()}\n",
    ],
)
def test_a_key_may_be_written_in_several_ways(text: str) -> None:
    assert key_of(text) == NEW


@given(st.binary(min_size=32, max_size=32))
def test_every_key_of_the_right_length_is_read_back(key: bytes) -> None:
    assert key_of(base64.b64encode(key).decode()) == key_of(base64.urlsafe_b64encode(key).decode()) == key
    assert key_of(key.hex()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "=",
        "é" * 43,
        "g" * 64,
        "A" * 42,
        "A" * 45,
        base64.b64encode(b"x" * 16).decode(),
        "A" * 43 + "!",
    ],
)
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="a key of 32 bytes") as caught:
        key_of(text)
    assert not text or text not in str(caught.value) or text == "="


def test_equal_arguments_have_one_fingerprint_for_one_task_and_one_key() -> None:
    def fingerprint(key: bytes = NEW, task: str = "t", args: bytes = b'{"a":1,"b":2}') -> str:
        return sealer(key, b"x" * 32).fingerprint(task, args)

    assert fingerprint() == fingerprint(args=b'{ "b": 2, "a": 1 }')
    assert len({fingerprint(), fingerprint(OLD), fingerprint(task="u"), fingerprint(args=b'{"a":1}')}) == 4
    with pytest.raises(TaskError, match="has no key"):
        sealer().fingerprint("t", b"{}")
