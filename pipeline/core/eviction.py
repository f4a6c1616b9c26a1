"""Which entry is given up when the cache is full.

Owns: the choice of the victim, and what is remembered of keys that are no longer stored. Knows neither bounds
nor tags.

A hit only counts itself and notes its time on its entry; everything else happens when something new comes in.

Theory of operation
    Two rules could choose. LRU takes what was not read for the longest time. LFU takes what was read least, and of
    several the one read last, so that a scan or a loop pushes out itself and not what is read again and again;
    counts halve every AGE turns of the cache. Neither is right for every program: over the traces of
    `make bench-cache`, LFU falls 60 points behind LRU where the newest things are read most, and LRU falls 38
    behind LFU in loops.

    So the two hold a duel. What each has pushed out lately is remembered by a fingerprint, and when such a key
    comes back, the rule that gave it up was wrong, the more so the sooner. The rule with the smaller share of such
    regrets decides; one time in EXPLORE the other one does, so that it can be judged, too (one in SELDOM while the
    first is hardly ever wrong). Regrets fade within a few turns of the cache, so a program that changes its ways
    is followed.

    Both rules choose among SAMPLE entries, not among all. That is within half a point of the exact rules, and
    needs no order of the entries that each hit would have to mend, no heap and no list of neighbours. The newest
    hundredth is safe from LFU, since nobody could have read it yet; the one that has just left that window is
    always in the sample, or those that stay would be nibbled away.

    How often keys were read that are no longer stored is kept in a count-min sketch (16 to 32 bytes an entry), the
    fingerprints in a table in which a newer one takes an older one's place (32 to 64 bytes). Both double as the
    cache grows. Nothing is left to chance: the same calls give the same victims.

Seen over 12 traces at 3 sizes each: at most 1.0 points below LRU, and that only where each W-TinyLFU falls 20 and
more below it; at most 1.7 below theine's W-TinyLFU. SIEVE fell 26 and 36 points behind them. A library could not
stand here: cachebox has LRU and LFU only, theine neither weights nor a word about what it evicts; moka-py has
both, but was 27 points below LRU and 4 below this on plain Zipf, and a look-up would be a call into it.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

SAMPLE = 16
EXPLORE = 32
SELDOM = 128  # the same, while the one that decides is hardly ever wrong
PRIOR = 64  # at first LRU counts as wrong half the time, in one of so many parts of a turn
AGE = 20
FADE = 5  # turns of the cache in which a regret counts less by a factor e
MARGIN = 0.01  # LFU decides unless LRU is better by this share: where nothing comes back, it keeps what it has
WINDOW = 100  # one in so many entries is too new to be judged by how often it was read
MOST = 60  # reads that count; more tell nothing

COUNTERS, COUNTERS_EACH = 1 << 14, 16
PRINTS, PRINTS_EACH = 1 << 10, 4
LRU, LFU = 0, 1
_STEP = 0x9E3779B1  # spreads the places that follow each other over the whole ring
_MIX = 0x9E3779B97F4A7C15
_64 = (1 << 64) - 1
_HALVED = bytes(count >> 1 for count in range(256))


class Evictable(Protocol):
    """What is asked of an entry. hits and used are written by whoever serves it; all below them is kept here.

    used: when it was served last, on the clock of expires_at. weight: how often it was read up to `counted` hits,
    halved up to `epoch`. fresh: in the window. place: in the ring.
    """

    key: Hashable
    expires_at: float
    hits: int
    used: float
    counted: int
    weight: int
    epoch: int
    fresh: bool
    place: int


E = TypeVar("E", bound=Evictable)


class Eviction(Generic[E]):
    """The entries that may be given up, in no order."""

    def __init__(self) -> None:
        self._ring: list[E] = []
        self._window: deque[E] = deque()
        self._candidate: E | None = None  # the last that left the window
        self._counters = bytearray(COUNTERS)
        self._prints = array("Q", bytes(8 * PRINTS))
        self._place = 0
        self._added = 0
        self._epoch = 0
        self._epoch_ends = 0
        self._duels = 0
        self._chosen = [0.0, 0.0]  # how often each rule decided, and was wrong; both fade
        self._wrong = [0.0, 0.0]

    @property
    def bytes(self) -> int:
        """Memory that grows with the number of entries and is not theirs."""
        tables = len(self._counters) - COUNTERS + 8 * (len(self._prints) - PRINTS)
        return tables + 9 * len(self._ring)  # a list is an eighth longer than it need be

    def add(self, entry: E) -> None:
        """A new entry. Its key is no longer, or not yet, in here."""
        ring = self._ring
        mixed = _mixed(entry.key)
        self._added += 1
        if self._added >= self._epoch_ends:
            self._counters = self._counters.translate(_HALVED)
            self._epoch += 1
            self._epoch_ends = self._added + AGE * max(len(ring), 100)
        self._regret(mixed)
        counters, one, two, three = self._counters, *self._rows(mixed)
        entry.weight = min(counters[one] + 1, counters[two] + 1, counters[three] + 1, MOST)
        entry.counted, entry.epoch, entry.fresh = entry.hits, self._epoch, True
        entry.place = len(ring)
        ring.append(entry)
        self._window.append(entry)
        while len(self._window) > max(1, len(ring) // WINDOW):
            left = self._window.popleft()
            left.fresh = False
            if left.place >= 0:
                self._candidate = left
        if len(ring) * COUNTERS_EACH > len(counters):
            self._counters = counters + counters  # by its longer hash a key finds its counts in either half
        if len(ring) * PRINTS_EACH > len(self._prints):
            self._prints = self._prints + self._prints

    def remove(self, entry: E) -> None:
        """An entry that went, whatever for. How often it was read is remembered."""
        ring = self._ring
        last = ring.pop()
        if last is not entry:
            ring[entry.place] = last
            last.place = entry.place
        entry.place = -1
        if entry is self._candidate:
            self._candidate = None
        if weight := self._weigh(entry):
            counters = self._counters
            for row in self._rows(_mixed(entry.key)):
                counters[row] = max(counters[row], weight)

    def victim(self, now: float) -> E:
        """The entry to give up next: one that is out of time, else by the rule that is right more often.

        The caller removes it. Raises IndexError when there is none.
        """
        sample, epoch = self._sample(), self._epoch
        old, rare, rare_weight = sample[0], None, 0
        for entry in sample:
            if entry.expires_at <= now:
                return entry
            if entry.used < old.used:
                old = entry
            if not entry.fresh:
                known = entry.hits == entry.counted and entry.epoch == epoch
                weight = entry.weight if known else self._weigh(entry)
                if rare is None or weight < rare_weight or (weight == rare_weight and entry.used > rare.used):
                    rare, rare_weight = entry, weight
        return old if rare is None or rare is old else self._duel(old, rare)

    def _sample(self) -> list[E]:
        ring, first = self._ring, self._place
        length = len(ring)
        if length <= SAMPLE:
            return ring
        self._place = (first + SAMPLE * _STEP) % length
        sample = [ring[(first + turn * _STEP) % length] for turn in range(SAMPLE)]
        if self._candidate is not None:
            sample.append(self._candidate)
        return sample

    def clear(self) -> None:
        """Forget the entries, but not how often each was read before it came in."""
        for entry in self._ring:
            entry.place = -1
        self._ring.clear()
        self._window.clear()
        self._candidate = None

    def _duel(self, old: E, rare: E) -> E:
        chosen, wrong = self._chosen, self._wrong
        if not self._duels:  # regrets come late; until some have, LFU is right
            chosen[LRU] = chosen[LFU] = len(self._ring) / PRIOR
            wrong[LRU] = chosen[LRU] / 2
        rule = LRU if wrong[LRU] / chosen[LRU] + MARGIN < wrong[LFU] / chosen[LFU] else LFU
        self._duels += 1
        often = EXPLORE if wrong[rule] > MARGIN * chosen[rule] else SELDOM
        if self._duels % often == 0:
            rule = LFU if rule == LRU else LRU
        kept = 1 - 1 / (FADE * len(self._ring))
        for which in (LRU, LFU):
            chosen[which] *= kept
            wrong[which] *= kept
        chosen[rule] += 1
        victim = old if rule == LRU else rare
        mixed = _mixed(victim.key)
        self._prints[mixed % len(self._prints)] = self._added << 17 | (mixed >> 47 & 0xFFFF) << 1 | rule
        return victim

    def _regret(self, mixed: int) -> None:
        """A key comes in: if a rule gave it up not long ago, that was wrong."""
        place = mixed % len(self._prints)
        found = self._prints[place]
        if found and found >> 1 & 0xFFFF == mixed >> 47 & 0xFFFF:
            self._prints[place] = 0
            age = self._added - (found >> 17)
            self._wrong[found & 1] += math.exp(-age / max(1, len(self._ring)))

    def _weigh(self, entry: E) -> int:
        if entry.epoch != self._epoch:
            entry.weight >>= self._epoch - entry.epoch
            entry.epoch = self._epoch
        if entry.hits != entry.counted:
            entry.weight = min(entry.weight + entry.hits - entry.counted, MOST)
            entry.counted = entry.hits
        return entry.weight

    def _rows(self, mixed: int) -> tuple[int, int, int]:
        mask = len(self._counters) - 1
        return mixed & mask, mixed >> 16 & mask, mixed >> 32 & mask


def _mixed(key: Hashable) -> int:
    mixed = hash(key) * _MIX & _64
    return (mixed ^ mixed >> 32) * _MIX & _64
