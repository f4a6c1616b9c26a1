"""The status as JSON, once (/api/v1/status) and once a second (/api/v1/stream).

Owns: the two representations and the streams' life. Knows nothing of where the figures come from.

All streams share one loop that samples and encodes once a second, and only while somebody listens. A stream
takes the newest frame when it is ready to write, so a slow reader skips frames and holds no memory.
"""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
from aiohttp import hdrs, web

from pipeline.core.status import Status
from pipeline.errors import Busy, PgreflexError
from pipeline.runtime import wait_for
from pipeline.web.problems import log
from pipeline.web.source import Sampler

INTERVAL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 10.0  # below the 60 s after which common proxies cut a silent connection
RETRY_MS = 3000
MOST_STREAMS = 100


class StatusApi:
    """GET /api/v1/status."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/status", self.status)

    async def status(self, request: web.Request) -> web.Response:
        """The whole status. The ETag covers the figures and not the moment of asking, hence it is weak."""
        status = await self._sampler.sample()
        tag = fingerprint(status)
        headers = {hdrs.ETAG: f'W/"{tag}"', hdrs.CACHE_CONTROL: "no-store"}
        wanted = request.if_none_match or ()
        if any(known.value in (tag, "*") for known in wanted):
            return web.Response(status=304, headers=headers)
        return web.Response(body=encode(status), content_type="application/json", headers=headers)


def encode(status: Status) -> bytes:
    return msgspec.json.encode(status)


def fingerprint(status: Status) -> str:
    """The same for two statuses that differ in the time of asking only."""
    return hashlib.sha256(encode(msgspec.structs.replace(status, at=0.0))).hexdigest()[:32]


class Streams:
    """GET /api/v1/stream, and the loop that feeds it."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._frame = b""
        self._number = 0
        self._open = 0
        self._fresh = asyncio.Event()  # set when the next frame is there, then replaced by a new one
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        self._life: asyncio.Timeout | None = None  # what ends `run`

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/stream", self.stream)

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._open

    def close(self) -> None:
        """End every stream and the loop, now: also when the source hangs."""
        self._closing.set()
        if self._life is not None:
            self._life.reschedule(asyncio.get_running_loop().time())
        self._wanted.set()
        self._fresh.set()

    async def run(self) -> None:
        """Make one frame a second while somebody listens, until `close`."""
        try:
            async with asyncio.timeout(None) as self._life:
                await self._rounds()
        except TimeoutError:
            if not self._closing.is_set():
                raise
        finally:
            self._life = None

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing.is_set():
            await self._wanted.wait()
            began = loop.time()
            self._publish(await self._next_frame())
            if not self._open:
                self._wanted.clear()
            await wait_for(self._closing, max(began + INTERVAL_SECONDS - loop.time(), 0))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The status as server-sent events: `message` with a Status, `problem` when none is to be had."""
        if self._open >= MOST_STREAMS:
            raise Busy(f"{MOST_STREAMS} streams are open.", hint="Close a page, or poll /api/v1/status.")
        response = await open_event_stream(request)
        if request.method == hdrs.METH_HEAD:
            return response
        self._open += 1
        try:
            await self._feed(response)
        except ConnectionError:
            pass  # the reader has gone
        finally:
            self._open -= 1
        return response

    async def _feed(self, response: web.StreamResponse) -> None:
        await response.write(f"retry: {RETRY_MS}\n\n".encode())
        seen = self._number
        self._wanted.set()
        while not self._closing.is_set():
            if self._number == seen and not await wait_for(self._fresh, KEEP_ALIVE_SECONDS):
                await response.write(b": keep-alive\n\n")
            elif self._number != seen:
                seen = self._number
                await response.write(self._frame)

    async def _next_frame(self) -> bytes:
        try:
            return event_frame(await self._sampler.sample())
        except PgreflexError as error:
            body = {"code": error.code, "detail": error.message, "hint": error.hint}
        except Exception as error:  # a source that fails must not end the streams: the next frame may be good
            log.exception("the status could not be gathered", error=type(error).__name__)
            body = {
                "code": "error",
                "detail": "The figures could not be gathered.",
                "hint": "The reason is in the log.",
            }
        return event_frame(body, kind="problem")

    def _publish(self, frame: bytes) -> None:
        self._frame, self._number = frame, self._number + 1
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()
        if self._closing.is_set():  # closed while the frame was being made: the new event must be set too
            self._fresh.set()


async def open_event_stream(request: web.Request) -> web.StreamResponse:
    """The answer to a request for server-sent events, begun; to HEAD it is complete with that."""
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            hdrs.CACHE_CONTROL: "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    if request.method == hdrs.METH_HEAD:
        response.content_length = 0
    await response.prepare(request)
    return response


def event_frame(data: object, *, kind: str = "", id_: str = "") -> bytes:
    """One server-sent event with `data` as JSON, which has no line breaks."""
    head = f"id: {id_}\n" if id_ else ""
    head += f"event: {kind}\n" if kind else ""
    return head.encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"
