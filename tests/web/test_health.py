"""The probes: what they answer, and that they answer whatever the rest does."""

from __future__ import annotations

import aiohttp
import pytest

from pipeline.runtime import Health
from pipeline.web.access import Tokens
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession
PROBES = ("/livez", "/readyz", "/healthz")


async def read(http: Client, path: str) -> tuple[int, str]:
    async with http.get(path) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("path", PROBES)
async def test_a_healthy_process_passes_every_probe(http: Client, path: str) -> None:
    assert await read(http, path) == (200, "ok\n")


@pytest.mark.parametrize("path", PROBES)
async def test_every_probe_answers_while_the_figures_hang(http: Client, source: Source, path: str) -> None:
    source.hangs = True
    assert await read(http, path) == (200, "ok\n")
    assert source.asked == 0


async def test_one_sick_service_makes_the_process_unready_but_alive(http: Client, source: Source) -> None:
    source.services["feed"] = Health(False, "no server answered at db1.internal")
    assert await read(http, "/livez") == (200, "ok\n")
    assert await read(http, "/readyz") == (503, "not ready: feed\n")
    assert await read(http, "/healthz") == (503, "unhealthy\n")


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
async def test_a_draining_process_says_when_to_come_back(http: Client, source: Source, path: str) -> None:
    source.draining = True
    async with http.get(path) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert (await read(http, "/livez"))[0] == 200


async def test_verbose_readiness_lists_each_check(http: Client, source: Source) -> None:
    source.services = {"web": Health(True), "feed": Health(False, "no server answered")}
    status, text = await read(http, "/readyz?verbose")
    assert status == 503
    assert text.splitlines() == [
        "[+]web ok",
        "[-]feed failed: no server answered",
        "[+]not draining ok",
        "readyz not ready: feed",
    ]


async def test_healthz_gives_no_details(http: Client, source: Source) -> None:
    source.services = {"feed": Health(False, "no server answered")}
    assert await read(http, "/healthz?verbose") == (503, "unhealthy\n")


async def test_reasons_are_withheld_from_those_without_a_token(serve: Serve, source: Source) -> None:
    token = "v" * 32
    source.services = {"feed": Health(False, "no server answered at db1.internal")}
    server = await serve(source, tokens=Tokens(viewer=token))
    async with Client(server.url) as http:
        _, text = await read(http, "/readyz?verbose")
        assert "[-]feed failed: reason withheld" in text
        assert "db1" not in text
        async with http.get("/readyz?verbose", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert "db1" in await answer.text()


@pytest.mark.parametrize("path", [*PROBES, "/", "/metrics", "/api/v1/status", "/api/v1/stream", "/static/app.js"])
async def test_head_works_everywhere(http: Client, path: str) -> None:
    async with http.head(path) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


@pytest.mark.parametrize("path", PROBES)
async def test_probe_answers_are_never_stored(http: Client, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
