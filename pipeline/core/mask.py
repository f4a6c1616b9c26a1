"""Hides secrets in text that a person or a log will see.

Owns: what a secret looks like. Knows nothing of where the text goes. It would rather hide too much: the
password of an address ends at the last `@`, because people forget to percent-encode one.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "********"

_SECRET_NAME = re.compile(r"token|secret|passw|pwd|authorization|api_?key|credential", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"([a-z][a-z0-9+.\-]*://[^\s:/@\"']*):[^\s\"']*@", re.IGNORECASE)
_IN_PAIR = re.compile(
    r"([\w\-]*(?:token|secret|passw|pwd|api_?key)[\w\-]*[\"']?\s*[=:]\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\"&,;)}\]]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer)\s+[\w.~+/=\-]+", re.IGNORECASE)
_DEPTH = 6  # a structure nested deeper than this is shown as text


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret whatever it holds."""
    return _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """The text without passwords: of addresses, `password=...` pairs and bearer tokens."""
    text = _IN_ADDRESS.sub(rf"\1:{MASK}@", text)
    text = _IN_PAIR.sub(rf"\1{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def mask_value(name: str, value: Any, depth: int = 0) -> Any:
    """The value as it may be shown under `name`; structures are masked inside."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret_name(name):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if depth < _DEPTH and isinstance(value, dict):
        return {key: mask_value(str(key), inner, depth + 1) for key, inner in value.items()}
    if depth < _DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [mask_value("", inner, depth + 1) for inner in value]
    return mask_text(str(value) if isinstance(value, BaseException) else repr(value))


def mask_url(url: str) -> str:
    """An address whose path may itself be the secret, as webhooks have it: scheme and host only."""
    match = re.match(r"([a-z][a-z0-9+.\-]*://)(?:[^/?#]*@)?([^/?#@]*)", url, re.IGNORECASE)
    return f"{match[1]}{match[2]}/{MASK}" if match else MASK
