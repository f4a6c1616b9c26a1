"""The page: its files and headers, and what a real browser makes of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest

from pipeline.core.status import FeedStatus, JobsStatus, Status
from pipeline.web.access import Tokens
from pipeline.web.page import assets
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.web.browser import CHROMIUM, Tab, browser
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession


async def test_the_page_is_a_shell_without_figures(http: Client, source: Source) -> None:
    async with http.get("/") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "db1" not in await answer.text()
    assert source.asked == 0


@pytest.mark.parametrize(
    "path", ["/", "/static/page.css", "/livez", "/nothing", "/api/v1/status", "/api/v1/stream"]
)
async def test_every_answer_carries_the_safety_headers(http: Client, path: str) -> None:
    async with http.get(path) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Server"] == "pgreflex"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_no_file_of_the_page_needs_what_the_policy_forbids() -> None:
    for name, asset in assets().items():
        text = asset.body.decode()
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=\"|javascript:|innerHTML|eval\(", text), name
        assert not re.search(r"""(?:src|href|from|import|url\()\s*=?\s*["'(]?https?://""", text), name


async def test_every_file_that_the_page_names_is_served(http: Client) -> None:
    named = {
        name
        for asset in assets().values()
        for name in re.findall(rb'/static/([\w.]+)|from "\./([\w.]+)"', asset.body)
    }
    names = {(first or second).decode() for first, second in named}
    assert {"app.js", "page.css", "dom.js"} <= names
    for name in names:
        async with http.get(f"/static/{name}") as answer:
            assert answer.status == 200, name


async def test_files_are_asked_for_again_and_answered_by_304(http: Client) -> None:
    async with http.get("/static/app.js") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.content_type == "text/javascript"
        tag = answer.headers["ETag"]
    async with http.get("/static/app.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
        assert answer.headers["ETag"] == tag


@pytest.mark.parametrize("name", ["..%2fserver.py", "%2e%2e%2f%2e%2e%2fruntime.py", "server.py", ".", ""])
async def test_only_the_files_of_the_page_are_served(http: Client, name: str) -> None:
    async with http.get(f"/static/{name}") as answer:
        assert answer.status == 404


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed; the page was not looked at")
    async with browser() as opened:
        yield opened


async def says(tab: Tab, what: str, *, within: float = 20) -> None:
    """Wait until the page shows this text."""

    async def shown() -> bool:
        text = re.sub(r"\s+", " ", await tab.evaluate("document.body?.innerText ?? ''"))
        return what in text

    await eventually(shown, within=within, why=f"{what!r} on the page")


async def test_a_browser_shows_the_figures_without_complaint(tab: Tab, server: WebServer) -> None:
    await tab.open(server.url)
    await says(tab, "4.18 M")
    for figure in (
        "pgreflex@db1:4711",
        "11.2 ms",
        "97.8 %",
        "orders-insert-p95",
        "61.2 ms",
        "5 min 12 s",
        'orders.insert{region="eu"}: p95 of',
        "acknowledged by ann, not told: silence 3",
        "2 rules cannot be judged; slack: 3 not accepted, 1 given up (slack answered 503)",
        "1.84 s",
        "public.stock",
        "31 failed in 24 h",
        "99.99 %",
        "12,480 hits checked, 0 wrong, 3 uncheckable; ended: 188 k changed, 1,204 size, 71 expired; not",
        "shop.orders.load_order",
        "all others",
        "draining",
        "paused",
        "10 of 10",
        "3 in vain, 1 left in a transaction",
        "the last 5 min; 82.0 % of the time of all queries",
        "o.status = any($2) <b>and</b> l.sku like $3",  # what comes from outside is text
        "update stock set left = left - $1 where sku = $2",
        "all queries beyond the bound on series",
    ):
        await says(tab, figure)
    assert await tab.evaluate("document.querySelector('#panel-series').innerText.includes('fingerprint')") is False
    # a runbook leads into the web, and nowhere else
    links = "[...document.querySelectorAll('#panel-alerts a')].map((a) => a.hidden ? '' : a.href + ' ' + a.rel)"
    assert await tab.evaluate(links) == ["https://wiki.example.org/slow-orders noopener noreferrer", ""]
    assert await tab.evaluate("document.title") == "(1 firing) pgreflex, pgreflex@db1:4711"
    assert await tab.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    assert tab.complaints == []


async def test_a_browser_says_that_checked_hits_were_wrong(tab: Tab, server: WebServer, source: Source) -> None:
    status = source.answer
    assert isinstance(status, Status)
    assert status.cache is not None
    cache = msgspec.structs.replace(status.cache, violations_total=2, checks_total=0, fresh_within_1s=None)
    source.answer = msgspec.structs.replace(status, cache=cache)
    await tab.open(server.url)
    await says(tab, "2 of 0 checked hits were wrong")
    shown = "document.querySelector('#tile-cache div:last-child dd').title"
    assert await tab.evaluate(shown) == "unknown"
    assert tab.complaints == []


async def test_a_browser_shows_what_is_unknown_as_unknown(
    tab: Tab, server: WebServer, source: Source, bare_status: Status
) -> None:
    source.answer = msgspec.structs.replace(bare_status, feed=FeedStatus(connected=True), jobs=JobsStatus())
    await tab.open(server.url)
    await says(tab, "No table is watched. Try: pgreflex watch public.orders --keys id")
    shown = await tab.evaluate(
        "[...document.querySelectorAll('#tile-delivery dd')].map((one) => [one.innerText.trim(), one.title])"
    )
    assert [(text.split()[0], title) for text, title in shown] == [("–", "unknown")] * 3
    assert await tab.evaluate("document.querySelector('#panel-queries').hidden") is True
    assert tab.complaints == []


async def test_a_browser_says_that_it_is_disconnected_and_comes_back(
    tab: Tab, serve: Serve, source: Source
) -> None:
    server = await serve(source)
    await tab.open(server.url)
    await says(tab, "live, as of")
    port = server.port
    await server.stop()
    await says(tab, "Disconnected since")
    assert await tab.evaluate("document.body.classList.contains('stale')")
    await serve(source, port=port)
    await says(tab, "live, as of", within=30)
    assert not await tab.evaluate("document.body.classList.contains('stale')")
    assert await tab.evaluate("document.getElementById('banner').hidden")


async def test_a_browser_says_so_when_the_figures_cannot_be_had(tab: Tab, serve: Serve, source: Source) -> None:
    server = await serve(source, status_timeout=0.2)
    await tab.open(server.url)
    await says(tab, "live, as of")
    source.hangs = True
    await says(tab, "The process answers but has had no figures since")
    assert await tab.evaluate("document.body.classList.contains('stale')")


async def test_a_browser_asks_for_the_token_and_keeps_it_in_the_tab(
    tab: Tab, serve: Serve, source: Source
) -> None:
    token = "viewer-" + "v" * 20
    server = await serve(source, tokens=Tokens(viewer=token))
    await tab.open(server.url)
    await says(tab, "A token is needed")
    await enter(tab, "wrong-token-wrong-token")
    await says(tab, "This token is not the one")
    assert await tab.evaluate("sessionStorage.length") == 0
    await enter(tab, token)
    await says(tab, "4.18 M")
    assert await tab.evaluate("localStorage.length + document.cookie.length") == 0
    assert token not in await tab.evaluate("location.href")


async def enter(tab: Tab, token: str) -> None:
    await tab.evaluate(
        f"document.getElementById('token').value = '{token}', document.querySelector('#door button').click()"
    )


@pytest.mark.parametrize("width", [380, 700, 1000, 1280, 1600])
async def test_nothing_hangs_over_the_edge_of_the_page(tab: Tab, server: WebServer, width: int) -> None:
    await tab.open(server.url, width=width)
    await says(tab, "4.18 M")
    over = await tab.evaluate(
        "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.unseen')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 90))"
    )
    assert over == []
