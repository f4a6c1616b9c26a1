"""Posts to other people's servers.

Owns: the one HTTP client of the process. Knows nothing of what it sends.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=10.0, connect=5.0)
MOST_ANSWER_BYTES = 4_096  # an answer is not read further than this


class Poster:
    """Opened on first use; `close` ends it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """POST a body; returns the HTTP status. Redirects are not followed: they would carry the body on.

        Raises aiohttp.ClientError or TimeoutError when no answer came.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True)
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            await response.content.read(MOST_ANSWER_BYTES)
            return response.status

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
