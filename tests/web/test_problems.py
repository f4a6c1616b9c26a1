"""Errors: always problem+json, with the code of the error tree, never with what happened inside."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from pipeline import errors
from pipeline.web.problems import every_error, status_of
from pipeline.web.server import WebServer
from tests.web.conftest import Source

Client = aiohttp.ClientSession


async def problem(answer: aiohttp.ClientResponse) -> dict[str, object]:
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, object] = await answer.json(content_type=None)
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "hint"}
    assert body["status"] == answer.status
    return body


@pytest.mark.parametrize("path", ["/nothing", "/api/v2/status", "/static/nothing.js", "/errors/nothing"])
async def test_an_unknown_address_is_a_404(http: Client, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.status == 404
        body = await problem(answer)
    assert body["type"] == "/errors/usage"
    assert body["instance"] == path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/api/v1/status", "/api/v1/stream"])
async def test_nothing_can_be_changed_here(http: Client, method: str, path: str) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert "GET" in str((await problem(answer))["hint"])


@pytest.mark.parametrize("failure", [RuntimeError("row (4711, 'secret')"), ConnectionRefusedError("10.0.0.7")])
async def test_a_failure_of_ours_is_a_500_that_tells_nothing_of_the_inside(
    http: Client, source: Source, failure: Exception
) -> None:
    source.answer = failure
    async with http.get("/api/v1/status") as answer:
        assert answer.status == 500
        text = await answer.text()
        assert (await problem(answer))["code"] == "error"
    for inside in ("secret", "10.0.0.7", "Traceback", "Error(", ".py"):
        assert inside not in text


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.DatabaseUnavailable("No server answered."), 503),
        (errors.LoginFailed("The server refused."), 503),
        (errors.PermissionMissing("The role may not."), 403),
        (errors.QueryFailed("It failed."), 500),
    ],
)
async def test_an_error_of_the_tree_keeps_its_code_and_hint(
    http: Client, source: Source, failure: errors.PgreflexError, status: int
) -> None:
    source.answer = failure
    async with http.get("/api/v1/status") as answer:
        assert answer.status == status
        body = await problem(answer)
    assert body["type"] == f"/errors/{failure.code}"
    assert (body["detail"], body["hint"]) == (failure.message, failure.hint)


async def test_every_error_has_a_status_and_an_address_that_explains_it(http: Client) -> None:
    for kind in every_error():
        assert 400 <= status_of(kind.__new__(kind)) <= 599
        async with http.get(f"/errors/{kind.code}") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            assert kind.code in await answer.text()


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)
async def test_what_is_not_http_gets_no_traceback(server: WebServer, junk: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(junk + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(65536), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.0 4")
    assert b"Traceback" not in answer
    assert b".py" not in answer


async def test_a_long_path_is_not_echoed_whole(http: Client) -> None:
    async with http.get("/" + "x" * 5000) as answer:
        assert len(str((await problem(answer))["instance"])) <= 200
