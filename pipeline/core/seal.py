"""Encrypts the arguments of a job, so that nobody who reads the database can read them.

Owns: the form of sealed arguments, `{"$sealed": "<key id>:<token>"}`, and the way to them and back. Knows neither
where keys come from nor which tasks want to be sealed; chance is an argument.

The cipher is XAES-256-GCM: AES-256-GCM under a key that is derived for each token from half of a nonce of 24
random bytes. Plain AES-GCM with its 12 bytes may be used for 2**32 tokens of one key, which a busy queue
reaches within a day; here it is 2**80. The name of the task is authenticated with the arguments, so that a
token which was copied into a job of another task does not open.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pipeline.errors import KeyMissing, TaskError

SEALED = "$sealed"
KEY_BYTES = 32
NONCE_BYTES = 24
_BLOCK = 16
_PURPOSE = b"pgreflex job arguments\x00"
_WANTED = "a key of 32 bytes, in base64 or as 64 hexadecimal digits"

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def key_of(text: str) -> bytes:
    """The key that is written in base64 (either alphabet) or hexadecimal. Raises ValueError, without the text."""
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        key = b64decode(text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"}) + "=", validate=True)
    except ValueError:
        raise ValueError(_WANTED) from None
    if len(key) != KEY_BYTES:
        raise ValueError(_WANTED)
    return key


def is_sealed(args: Mapping[str, Any]) -> bool:
    """Whether these are sealed arguments."""
    return len(args) == 1 and isinstance(args.get(SEALED), str)


class Sealer:
    """Seals with the first key and opens with all of them; without a key it only passes on what is in clear.

    keys: 32 bytes each. chance: that many unpredictable bytes, as os.urandom gives them.
    """

    def __init__(self, keys: Sequence[bytes], chance: Callable[[int], bytes]) -> None:
        self._boxes = {box.id: box for box in map(_Box, reversed(keys))}
        self._first = _Box(keys[0]) if keys else None
        self._chance = chance

    def seal(self, task: str, args: bytes) -> bytes:
        """The arguments for `task`, a JSON object, as another that is sealed. Raises TaskError without a key."""
        if self._first is None:
            raise TaskError(
                f"task {task} wants its arguments encrypted, and this process has no key",
                hint="Set jobs.encryption_keys, for example to the output of `openssl rand -base64 32`.",
            )
        nonce = self._chance(NONCE_BYTES)
        token = nonce + self._first.encrypt(nonce, args, _bound(task))
        return b'{"%s":"%s:%s"}' % (SEALED.encode(), self._first.id.encode(), urlsafe_b64encode(token))

    def fingerprint(self, task: str, args: bytes) -> str:
        """What equal arguments of a task have in common, and nobody without the key can guess at.

        It stands for the arguments where a job is to be unique by all of them. Another first key gives
        another one. Raises TaskError without a key, msgspec.DecodeError for what is no JSON.
        """
        if self._first is None:
            raise TaskError(f"task {task} wants its arguments encrypted, and this process has no key", hint="")
        same = msgspec.json.encode(msgspec.json.decode(args), order="deterministic")
        return hmac.digest(self._first.print_key, _bound(task) + b"\x00" + same, "sha256").hex()

    def open(self, task: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in clear; those that were not sealed as they are.

        Raises KeyMissing when another process may have the key, TaskError for what no key will ever open.
        """
        if not is_sealed(args):
            return dict(args)
        id_, _, text = args[SEALED].partition(":")
        box = self._boxes.get(id_)
        if box is None:
            raise KeyMissing(f"the arguments of a job of task {task} are sealed with key {id_[:20]!r}")
        try:
            token = urlsafe_b64decode(text)
            return _decode(box.decrypt(token[:NONCE_BYTES], token[NONCE_BYTES:], _bound(task)))
        except (InvalidTag, ValueError, msgspec.DecodeError):
            raise TaskError(
                f"the sealed arguments of a job of task {task} do not open",
                hint="They were changed, or sealed for a task of another name.",
            ) from None


class _Box:
    """One key. id: the beginning of a hash of it, which tells nothing of a key that was drawn at random."""

    def __init__(self, key: bytes) -> None:
        self.id = hashlib.sha256(b"pgreflex key id\x00" + key).hexdigest()[:12]
        self.print_key = hashlib.sha256(b"pgreflex fingerprint\x00" + key).digest()
        self._cipher = Cipher(AES(key), ECB())  # noqa: S305 - one block at a time, as CMAC uses it
        zero = int.from_bytes(self._cipher.encryptor().update(bytes(_BLOCK)), "big") << 1
        self._mask = (zero ^ 0x87 if zero >> 128 else zero) & (1 << 128) - 1

    def encrypt(self, nonce: bytes, text: bytes, bound: bytes) -> bytes:
        return self._derived(nonce).encrypt(nonce[12:], text, bound)

    def decrypt(self, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
        return self._derived(nonce).decrypt(nonce[12:], sealed, bound)

    def _derived(self, nonce: bytes) -> AESGCM:
        """The key of this nonce: the CMAC of two counters and the nonce's first half."""
        blocks = b""
        for counter in (1, 2):
            block = int.from_bytes(bytes((0, counter)) + b"X\x00" + nonce[:12], "big") ^ self._mask
            blocks += block.to_bytes(_BLOCK, "big")
        return AESGCM(self._cipher.encryptor().update(blocks))


def _bound(task: str) -> bytes:
    return _PURPOSE + task.encode("utf-8", "surrogatepass")
