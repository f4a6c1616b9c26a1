"""Who may read: tokens, loopback, the Host header; and that no token is ever told."""

from __future__ import annotations

import asyncio
import io
import logging

import aiohttp
import pytest
import structlog
from yarl import URL

from pipeline.errors import ConfigError
from pipeline.web.access import Access, Tokens, host_name, is_loopback
from pipeline.web.server import WebServer
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession
VIEWER, ADMIN = "viewer-" + "v" * 20, "admin-" + "a" * 20
FIGURES = ("/metrics", "/api/v1/status", "/api/v1/stream")
OPEN = ("/", "/static/app.js", "/livez", "/readyz", "/healthz", "/errors/busy")


@pytest.fixture
async def guarded(serve: Serve, source: Source) -> WebServer:
    """A server that is open to the network."""
    return await serve(source, host="0.0.0.0", tokens=Tokens(viewer=VIEWER, admin=ADMIN))


async def status_of(server: WebServer, path: str, authorization: str | None = None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with Client(server.url) as http, http.get(path, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "db1.internal"])
def test_a_bind_to_the_network_without_a_viewer_token_is_refused(source: Source, host: str) -> None:
    for tokens in (None, Tokens(), Tokens(admin=ADMIN)):
        with pytest.raises(ConfigError, match="open to the network") as refused:
            WebServer(source, host=host, tokens=tokens)
        assert "127.0.0.1" in refused.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_bind_needs_no_token(source: Source, host: str) -> None:
    assert not Access(host, None).token_needed
    assert is_loopback(host)


@pytest.mark.parametrize("token", ["", "short", "x" * 15])
def test_a_token_that_can_be_guessed_is_refused(source: Source, token: str) -> None:
    with pytest.raises(ConfigError, match="shorter than 16"):
        WebServer(source, tokens=Tokens(viewer=token))


@pytest.mark.parametrize("path", FIGURES)
async def test_figures_need_a_token_on_the_network(guarded: WebServer, path: str) -> None:
    async with Client(guarded.url) as http, http.get(path) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await answer.json(content_type=None))["type"] == "/errors/permission-missing"
    assert await status_of(guarded, path, f"Bearer {VIEWER}") == 200
    assert await status_of(guarded, path, f"bearer {VIEWER}") == 200
    assert await status_of(guarded, path, f"Bearer {ADMIN}") == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {VIEWER}x",
        f"Bearer {VIEWER[:-1]}",
        f"Basic {VIEWER}",
        VIEWER,
        "Bearer \xe9",
    ],
)
async def test_anything_but_the_token_is_refused(guarded: WebServer, authorization: str) -> None:
    assert await status_of(guarded, "/metrics", authorization) == 401


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_the_empty_page_need_no_token(guarded: WebServer, path: str) -> None:
    assert await status_of(guarded, path) == 200


@pytest.mark.parametrize(
    "path", ["//metrics", "/static/../metrics", "/static/%2e%2e/metrics", "/livez/../metrics"]
)
async def test_no_spelling_of_a_path_gets_around_the_token(guarded: WebServer, path: str) -> None:
    async with Client() as http, http.get(URL(guarded.url[:-1] + path, encoded=True)) as answer:
        assert answer.status in (401, 404)
        assert "pgreflex_" not in await answer.text()


async def test_an_unknown_path_is_not_told_apart_without_a_token(guarded: WebServer) -> None:
    assert await status_of(guarded, "/api/v1/nothing") == 401
    assert await status_of(guarded, "/api/v1/nothing", f"Bearer {VIEWER}") == 404


async def test_a_viewer_token_counts_on_loopback_too(serve: Serve, source: Source) -> None:
    server = await serve(source, tokens=Tokens(viewer=VIEWER))
    assert await status_of(server, "/metrics") == 401
    assert await status_of(server, "/metrics", f"Bearer {VIEWER}") == 200


async def test_an_admin_token_alone_leaves_reading_open_on_loopback(serve: Serve, source: Source) -> None:
    server = await serve(source, tokens=Tokens(admin=ADMIN))
    assert await status_of(server, "/metrics") == 200


async def send_malformed(server: WebServer, token: str) -> None:
    """A token in a header that the HTTP parser itself refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\0\r\n\r\n".encode())
    assert b" 400 " in await reader.readline()
    writer.close()


def test_a_token_is_not_in_its_repr() -> None:
    shown = f"{Tokens(VIEWER, ADMIN)!r} {Tokens(VIEWER, ADMIN)} {Tokens()}"
    assert VIEWER not in shown
    assert ADMIN not in shown
    assert "viewer=None" in shown


async def test_a_token_is_never_logged(
    serve: Serve, source: Source, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    written = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.PrintLoggerFactory(written),
    )
    try:
        server = await serve(source, tokens=Tokens(viewer=VIEWER, admin=ADMIN))
        source.answer = RuntimeError("broken")
        for token in (VIEWER, ADMIN, VIEWER + "x"):
            await status_of(server, "/api/v1/status", f"Bearer {token}")
            await send_malformed(server, token)
        await server.stop()
    finally:
        structlog.reset_defaults()
    captured = capfd.readouterr()
    everything = written.getvalue() + caplog.text + captured.out + captured.err
    assert "request failed" in everything
    assert VIEWER not in everything
    assert ADMIN not in everything


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8787", "localhost", "LOCALHOST:1", "localhost.", "[::1]:9", "[::1]"]
)
async def test_loopback_names_are_served_with_any_port(server: WebServer, host: str) -> None:
    async with Client(server.url) as http, http.get("/api/v1/status", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
@pytest.mark.parametrize("path", ["/api/v1/status", "/", "/readyz"])
async def test_a_rebound_name_is_turned_away(server: WebServer, host: str, path: str) -> None:
    async with Client(server.url) as http, http.get(path, headers={"Host": host}) as answer:
        assert answer.status == 421
        assert answer.content_type == "application/problem+json"


async def test_a_client_that_sends_no_name_is_served(server: WebServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()


async def test_a_configured_name_is_served(serve: Serve, source: Source) -> None:
    server = await serve(source, allowed_hosts=["Status.Example"])
    async with Client(server.url) as http:
        for host, expected in (("status.example", 200), ("status.example:443", 200), ("other.example", 421)):
            async with http.get("/livez", headers={"Host": host}) as answer:
                assert answer.status == expected


async def test_on_the_network_the_token_guards_and_any_name_is_served(guarded: WebServer) -> None:
    headers = {"Host": "db1.internal", "Authorization": f"Bearer {VIEWER}"}
    async with Client(guarded.url) as http, http.get("/metrics", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("A.b:1", "a.b"), ("[::1]:80", "::1"), ("[fe80::1]", "fe80::1"), ("x.", "x"), ("", "")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name
