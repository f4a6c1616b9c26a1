"""Posts to other people's servers.

Owns: the one HTTP client of the process, and the words for what goes wrong with it. Knows nothing of what it
sends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from pipeline.core.outgoing import Answer, NoAnswer, pause_of

TIMEOUT = aiohttp.ClientTimeout(total=10.0, connect=5.0)
MOST_ANSWER_BYTES = 4_096  # an answer is not read further than this


class Poster:
    """Opened on first use; `close` ends it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST a body. Redirects are not followed: they would carry the body on.

        Once there is a status it counts, whatever becomes of the rest of the answer. Raises NoAnswer.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                with suppress(aiohttp.ClientError, TimeoutError):
                    await response.content.read(MOST_ANSWER_BYTES)
                return Answer(response.status, pause_of(response.headers.get("Retry-After"), time.time()))
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise _explained(error) from None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _explained(error: Exception) -> NoAnswer:
    """Without the address, which often is a credential."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NoAnswer("the name of the server cannot be resolved")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NoAnswer("the server's certificate is not to be trusted")
    if isinstance(error, aiohttp.ClientSSLError):
        return NoAnswer("no encrypted connection could be made")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError):
        return NoAnswer("the address is not one of http or https", permanent=True)
    if isinstance(error, TimeoutError):
        return NoAnswer("no answer in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return NoAnswer(
            f"the server cannot be reached: {error.os_error.strerror or type(error.os_error).__name__}"
        )
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError):
        return NoAnswer("the server closed the connection without an answer")
    return NoAnswer(f"no answer: {type(error).__name__}")
