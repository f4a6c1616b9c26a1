"""What was seen of one series in one window of time.

Owns: how long windows are, where they start, how long they are kept, and how two parts of one are merged. Knows
nothing of where parts come from or how they are stored.
"""

from __future__ import annotations

import msgspec

from pipeline.core.digest import Digest
from pipeline.core.series import Series

BASE_SECONDS = 5  # an alert may be judged on windows as short as this
LEVELS = (BASE_SECONDS, 60, 300, 3_600, 86_400)
KEEP_SECONDS = {  # a part that has been rolled up is kept this long; the last level ends here
    BASE_SECONDS: 20 * 60,
    60: 48 * 3_600,
    300: 7 * 86_400,
    3_600: 30 * 86_400,
    86_400: 400 * 86_400,
}


class Part(msgspec.Struct):
    """What one writer saw of one series in one window. Values are milliseconds.

    over: how many were above the writer's threshold for slow. rows: how many rows the statements returned or
    changed. count, sum, low and high live in the digest.
    """

    series: Series
    start: int
    digest: Digest
    errors: int = 0
    over: int = 0
    rows: int = 0

    def merge(self, other: Part) -> None:
        """Take in another part; the counts stay exact."""
        self.digest.merge(other.digest)
        self.errors += other.errors
        self.over += other.over
        self.rows += other.rows

    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return 600 + self.digest.size()


def window_start(at: float, seconds: int = BASE_SECONDS) -> int:
    """The start of the window that `at` lies in."""
    return int(at // seconds) * seconds
