"""Durations of the last minute, for the status page.

Owns: a sliding window of samples and its percentiles. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections import deque

from pipeline.core.status import Quantiles

MOST_SAMPLES = 4096  # beyond this the oldest go: the newest are what a person looks for


class Recent:
    """Samples of the last `window` seconds, the newest MOST_SAMPLES of them, in milliseconds."""

    def __init__(self, window: float = 60.0) -> None:
        self.window = window
        self._samples: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)

    def add(self, ms: float, now: float) -> None:
        self._samples.append((now, ms))

    def quantiles(self, now: float) -> Quantiles:
        """The percentiles of the samples up to `now`, over the time that they span; all None without any."""
        while self._samples and self._samples[0][0] < now - self.window:
            self._samples.popleft()
        values = sorted(ms for _at, ms in self._samples)
        if not values:
            return Quantiles(window_seconds=self.window)
        full = len(self._samples) == self._samples.maxlen  # then they reach back less far than the window
        return Quantiles(
            p50=_nearest_rank(values, 0.50),
            p95=_nearest_rank(values, 0.95),
            p99=_nearest_rank(values, 0.99),
            count=len(values),
            window_seconds=now - self._samples[0][0] if full else self.window,
        )


class Rate:
    """Events a second over the last `window` seconds."""

    def __init__(self, window: float = 10.0) -> None:
        self.window = window
        self._counts: deque[tuple[float, int]] = deque()
        self._began: float | None = None

    def add(self, count: int, now: float) -> None:
        if self._began is None:
            self._began = now
        if count:
            self._counts.append((now, count))

    def per_second(self, now: float) -> float | None:
        """The rate, or None before anything was counted."""
        if self._began is None:
            return None
        while self._counts and self._counts[0][0] < now - self.window:
            self._counts.popleft()
        return sum(count for _at, count in self._counts) / max(min(self.window, now - self._began), 1.0)


def _nearest_rank(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
