"""Which of several hosts is asked first, and for how long.

Owns: how an address with several hosts is turned round. Opens nothing.

asyncpg asks the hosts one after the other within one time limit for all of them. A host that is switched off does
not refuse, it is silent, and the limit is over before the next one is asked. So an attempt that failed is followed
by one that begins with the next host, and the first attempts are short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

FIRST_SECONDS = 2.0  # a host in reach answers in milliseconds, and who waits has five seconds


def named(dsn: str | None) -> str | None:
    """The application_name that the address itself gives."""
    return dict(parse_qsl(urlsplit(dsn or "").query)).get("application_name")


class Dial:
    """An address and what asyncpg.connect is given besides."""

    def __init__(self, dsn: str | None, driver: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._host = driver.get("host")
        self._port = driver.get("port")
        self.hosts = len(self._lists()[0])

    def turned(self, by: int) -> tuple[str | None, dict[str, Any]]:
        """The address with host number `by`, round the list, in front; and what has changed of the rest."""
        if self.hosts < 2:
            return self._dsn, {}
        hosts, ports = self._lists()
        by %= self.hosts
        hosts = hosts[by:] + hosts[:by]
        ports = ports[by:] + ports[:by] if len(ports) == self.hosts else ports
        if self._host is not None:
            return self._dsn, {"host": hosts} | ({"port": ports} if isinstance(self._port, (list, tuple)) else {})
        parts = urlsplit(self._dsn or "")
        user, at, named = parts.netloc.rpartition("@")
        if named:
            return urlunsplit(parts._replace(netloc=f"{user}{at}{','.join(hosts)}")), {}
        changed = {"host": ",".join(hosts)} | ({"port": ",".join(ports)} if len(ports) > 1 else {})
        query = [(name, changed.get(name, value)) for name, value in parse_qsl(parts.query)]
        text = urlencode(query, quote_via=quote, safe="/,")
        return f"{parts.scheme}://{parts.netloc}{parts.path}?{text}", {}

    def seconds(self, failures: int, longest: float) -> float:
        """How long one attempt may take after so many failed: in each round of all hosts twice as long."""
        if self.hosts < 2:
            return longest
        return min(longest, FIRST_SECONDS * 2.0 ** min(failures // self.hosts, 16))

    def _lists(self) -> tuple[list[Any], list[Any]]:
        if self._host is not None:
            return _listed(self._host), _listed(self._port)
        parts = urlsplit(self._dsn or "")
        named = parts.netloc.rpartition("@")[2]
        if named:
            return named.split(","), []
        query = dict(parse_qsl(parts.query))
        return query.get("host", "").split(","), query.get("port", "").split(",")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
