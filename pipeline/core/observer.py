"""What an instrumented driver tells: the seam between drivers and what is made of their queries.

Owns: the protocol. Knows neither drivers nor series.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Hears of every query of an instrumented driver, on any thread. Must not raise, and must not block."""

    def query(self, text: str, seconds: float, *, rows: int | None, error: str | None) -> None:
        """A query has ended. text: as it was sent, without arguments. rows: returned or changed; None: unknown.

        error: an SQLSTATE or the name of an exception's class, never its message; None: it went well.
        """
