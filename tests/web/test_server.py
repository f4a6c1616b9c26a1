"""The server as a service: its socket, its start, its end, and what it says when it cannot have its port."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from pipeline.errors import Busy, ConfigError
from pipeline.runtime import Health, Service, Supervisor
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession


class Slow:
    """A service that takes its time to stop."""

    name = "slow"

    def __init__(self) -> None:
        self._asked, self.finish = asyncio.Event(), asyncio.Event()

    async def start(self) -> None: ...

    async def run(self) -> None:
        await self._asked.wait()
        await self.finish.wait()

    async def stop(self) -> None:
        self._asked.set()

    def healthy(self) -> Health:
        return Health(True)


def test_the_web_server_is_a_service(source: Source) -> None:
    server = WebServer(source)
    assert isinstance(server, Service)
    assert server.name == "web"
    assert server.url == "http://127.0.0.1:8787/"
    assert not server.healthy().ok


async def test_it_is_healthy_between_start_and_stop(serve: Serve, source: Source) -> None:
    server = await serve(source)
    assert server.healthy() == Health(True, f"listens on {server.url}")
    await server.stop()
    assert not server.healthy().ok


async def test_a_taken_port_is_explained(server: WebServer, source: Source) -> None:
    late = WebServer(source, port=server.port)
    with pytest.raises(Busy) as refused:
        await late.start()
    assert refused.value.message == f"Port {server.port} is taken by another program."
    assert "--port" in refused.value.hint
    assert "PGREFLEX_HTTP_PORT" in refused.value.hint
    assert not late.healthy().ok


async def test_a_start_that_failed_can_be_tried_again(serve: Serve, source: Source) -> None:
    first = await serve(source)
    second = WebServer(source, port=first.port)
    with pytest.raises(Busy):
        await second.start()
    await first.stop()
    await second.start()
    assert second.healthy().ok
    await second.stop()


async def test_a_foreign_address_is_explained(source: Source) -> None:
    from pipeline.web.access import Tokens

    for host in ("192.0.2.7", "nowhere.invalid"):
        server = WebServer(source, host=host, port=0, tokens=Tokens(viewer="v" * 20))
        with pytest.raises(ConfigError, match="not an address of this machine"):
            await server.start()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(source: Source, port: int) -> None:
    with pytest.raises(ConfigError, match="not a port"):
        WebServer(source, port=port)


async def test_a_second_start_leaves_the_socket_open(server: WebServer) -> None:
    port = server.port
    await server.start()
    assert server.port == port


async def test_stop_may_come_twice_or_before_start(source: Source) -> None:
    server = WebServer(source, port=0)
    await server.stop()
    await server.start()
    task = asyncio.create_task(server.run())
    await server.stop()
    await server.stop()
    await asyncio.wait_for(task, 1)


async def test_a_stopped_server_answers_no_more_and_stops_at_once(server: WebServer, http: Client) -> None:
    async with http.get("/livez") as answer:
        await answer.read()
    began = time.monotonic()
    await server.stop()  # the client's connection is still open and idle
    assert time.monotonic() - began < 0.4
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get("/livez")


async def test_a_request_that_hangs_does_not_hold_up_the_end(
    server: WebServer, http: Client, source: Source
) -> None:
    source.hangs = True
    request = asyncio.create_task(http.get("/api/v1/status"))
    await eventually(lambda: source.asked, why="the request")
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 1.5
    await asyncio.gather(request, return_exceptions=True)


async def test_the_supervisor_runs_it_and_readiness_tells_of_the_drain(source: Source) -> None:
    slow = Slow()
    server = WebServer(source, port=0)
    supervisor = Supervisor([server, slow])
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: server.healthy().ok, why="the start")
    async with Client(server.url) as http:
        supervisor.shutdown()
        await eventually(lambda: supervisor.draining, why="the drain")
        source.draining = supervisor.draining
        async with http.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "draining\n")
        slow.finish.set()
        await asyncio.wait_for(running, 5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get("/readyz")


async def test_ipv6_loopback_has_an_address_to_click(serve: Serve, source: Source) -> None:
    server = await serve(source, host="::1")
    assert server.url == f"http://[::1]:{server.port}/"
    async with Client(server.url) as http, http.get("/livez") as answer:
        assert answer.status == 200
