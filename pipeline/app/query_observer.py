"""Turns the reports of instrumented drivers into timings by fingerprint.

Owns: which series a query belongs to, what is remembered of its text, and that a mistake of ours stays ours. Must
not know any driver, nor how timings and texts are stored.

A report costs a look-up and an append, 0.4 microseconds. The look-up is by the hash of the text, so no text that
was sent, which may hold people's data as literals, is kept: only its fingerprint, which has none. Two of 10,000
texts share a 64-bit hash in one of 10^11 such programs, and would be counted as one query.

A text that was not met before is read, which takes 20 to 200 microseconds. Programs that write values into their
texts never send the same one twice, so a new text is looked up without its plain literals first, which takes 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import TypeAlias

import structlog

from pipeline.core.fingerprint import Fingerprint, fingerprint
from pipeline.core.timing_context import current_labels
from pipeline.core.window import Windows

MAX_TEXTS = 20_000  # texts with labels that are known by their hashes; 5 MB
MAX_LABELS = 256  # sets of labels that are recognised by being the same object
MAX_NEW = 10_000  # fingerprints that wait to be written
LONG = 65_536  # characters of a text that are read at most, in 2 ms
LOOSE = 4_096  # characters up to which it pays to look without literals
Lives: TypeAlias = dict[int, Callable[..., None]]  # Live.add, by the hash of the text
Slow: TypeAlias = Callable[[str, Fingerprint, float], object]

_LITERAL = re.compile(r"'[^']*'|(?<![\w$.])\d+(?:\.\d+)?")
_INTRICATE = re.compile(r'["\\]|--|/\*|\$(?!\d)')  # here a quote may not be what it seems

log = structlog.get_logger("pgreflex.queries")


class QueryObserver:
    """An Observer (pipeline.core.observer). slow: is told of each query that took `slow_ms` or longer, with its
    text, its fingerprint and the milliseconds; it must return at once.

    refusals: what could not be instrumented, and why. faults_total: reports that were lost by a mistake of ours.
    unread_total: texts of which only the first LONG characters were read.
    """

    def __init__(self, windows: Windows, *, slow_ms: float = 1_000.0, slow: Slow | None = None) -> None:
        self.windows = windows
        self.slow_ms = slow_ms
        self.slow = slow
        self._texts: dict[int, Fingerprint] = {}
        self._plain: Lives = {}  # where no labels hold
        self._by_labels: dict[str, Lives] = {}
        self._labelled: dict[int, tuple[object, Lives]] = {}
        self._held = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything; in a process that was forked."""
        self._lock = Lock()
        self.faults_total = self.unread_total = self.forgotten_total = 0
        self.refusals: dict[str, str] = {}
        self._new: dict[str, Fingerprint] = {}
        self._known: set[str] = set()
        self._forget()

    def query(self, text: str, seconds: float, *, rows: int | None, error: str | None) -> None:
        """One query ended. Any thread; never raises."""
        try:
            labels = current_labels()
            lives = self._lives(labels) if labels else self._plain
            add = lives.get(hash(text)) if len(text) <= LONG else None
            if add is None:
                add = self._meet(text, lives, labels)
            ms = seconds * 1000.0
            add(ms, error=error is not None, rows=rows or 0)
            if ms >= self.slow_ms and self.slow is not None:
                self.slow(text, self._read(text), ms)
        except Exception as fault:
            self.failed(fault)

    def transaction(self, seconds: float, *, error: str | None) -> None:
        """One transaction ended. Any thread; never raises."""
        try:
            live = self.windows.series("transaction", current_labels(), source="query")
            live.add(seconds * 1000.0, error=error is not None)
        except Exception as fault:
            self.failed(fault)

    def refused(self, what: str, reason: str) -> None:
        """Something works on without being timed; said once."""
        if what not in self.refusals and len(self.refusals) < 100:
            self.refusals[what] = reason
            log.warning("queries are not timed", what=what, reason=reason)

    def failed(self, fault: Exception) -> None:
        """A report was lost. Only the kind of the fault is told: its message may quote a query."""
        self.faults_total += 1
        if self.faults_total == 1:
            log.warning("a query could not be timed", fault=type(fault).__name__)

    def take_texts(self) -> list[Fingerprint]:
        """Remove and return the fingerprints that are new since the last time."""
        with self._lock:
            taken, self._new = self._new, {}
        return list(taken.values())

    def restore_texts(self, texts: Iterable[Fingerprint]) -> None:
        """Put back what could not be written."""
        with self._lock:
            self._new = {**{one.hex: one for one in texts}, **self._new}

    def _lives(self, labels: Mapping[str, object]) -> Lives:
        # The same object for as long as they hold, and kept here, so that its id is nobody else's.
        held = self._labelled.get(id(labels))
        if held is not None:
            return held[1]
        if len(self._labelled) >= MAX_LABELS:
            self._labelled = {}
        with self._lock:
            text = _joined(labels.items())
            lives = self._by_labels.setdefault(text, {})
        self._labelled[id(labels)] = (labels, lives)
        return lives

    def _meet(self, text: str, lives: Lives, labels: Mapping[str, object]) -> Callable[..., None]:
        """The handle for a text that was not met with these labels."""
        key = _key(text)
        add = lives.get(key)
        if add is None:
            found = self._read(text)
            add = self.windows.series("query", {**labels, "fingerprint": found.hex}, source="query").add
            with self._lock:
                self._held += 1
                if self._held > MAX_TEXTS:
                    self._forget()
                else:
                    lives[key] = add
        return add

    def _read(self, text: str) -> Fingerprint:
        key = _key(text)
        found = self._texts.get(key)
        if found is not None:
            return found
        loose = _loose(text)
        found = self._texts.get(loose) if loose else None
        if found is None:
            found = fingerprint(text) if len(text) <= LONG else fingerprint(_head(text), cut=True)
        with self._lock:
            self.unread_total += len(text) > LONG
            self._texts[key] = found
            if loose:
                self._texts[loose] = found
            self._remember(found)
        return found

    def _remember(self, found: Fingerprint) -> None:
        if found.hex in self._known:
            return
        if len(self._known) >= MAX_NEW:
            self._known = set()  # who comes again is written again, which does no harm
        self._known.add(found.hex)
        if len(self._new) < MAX_NEW:
            self._new[found.hex] = found
        else:
            self.forgotten_total += 1

    def _forget(self) -> None:
        self._held = 0
        self._texts, self._plain, self._by_labels, self._labelled = {}, {}, {}, {}


def _key(text: str) -> int:
    return hash(text) if len(text) <= LONG else hash(_head(text))


def _head(text: str) -> str:
    """The beginning of a long text, up to the end of a row or item, so that a longer list begins the same."""
    end = text.rfind("),", LONG // 2, LONG) + 1 or text.rfind(",", LONG // 2, LONG)
    return text[: end if end > 0 else LONG]


def _loose(text: str) -> int | None:
    """The hash of a text without its literals, where they are plain; None elsewhere."""
    if len(text) > LOOSE or _INTRICATE.search(text):
        return None
    return hash(_LITERAL.sub("?", text))


def _joined(labels: Iterable[tuple[str, object]]) -> str:
    return "\0".join(f"{key}\1{value!r}" for key, value in sorted(labels))
