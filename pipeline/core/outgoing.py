"""What comes back when we post to somebody else's server.

Owns: the answer, and the words for there being none. Must not know HTTP clients, nor what is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isnan
from typing import TypeAlias

import msgspec

LONGEST_PAUSE = 3_600.0  # a receiver that asks for more is asked again after this


class Answer(msgspec.Struct, frozen=True):
    """retry_after: seconds, where the answer asks for a pause."""

    status: int
    retry_after: float | None = None


class NoAnswer(Exception):
    """There was none; the text says why and holds nothing of the address. permanent: trying again cannot help."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


Post: TypeAlias = Callable[[str, bytes, Mapping[str, str]], Awaitable[Answer]]
"""Sends a body by POST and returns the answer. Raises NoAnswer. Redirects are not followed."""


def pause_of(header: str | None, now: float) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None for anything else."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return None if isnan(seconds) else min(max(seconds, 0.0), LONGEST_PAUSE)
