"""`pgreflex status` and `pgreflex health`: ask a running daemon over HTTP."""

from __future__ import annotations

import http.client
from datetime import UTC, datetime

import click
import msgspec

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.config_sections import Http
from pipeline.core.cache_check import nines
from pipeline.core.status import Quantiles, QueueStatus, Status
from pipeline.errors import DaemonUnreachable, PermissionMissing

ANSWER_SECONDS = 5.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound


@click.command(cls=Verb, short_help="Show what a running daemon does.")
@pass_session
def status(session: Session) -> None:
    """Ask the daemon at http.host and http.port what it is doing.

    Example: pgreflex status --json
    """
    found = told(session)
    if session.json:
        session.print_json(msgspec.to_builtins(found))
    else:
        for line in lines(found):
            session.print(line)


@click.command(cls=Verb, short_help="Probe a running daemon.")
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only alive.")
@pass_session
def health(session: Session, ready: bool) -> int:
    """Exit with 0 if the daemon is alive, with 1 if not. For containers.

    Example: pgreflex health --ready
    """
    code, body = ask(session.load().config.http, "/readyz" if ready else "/livez")
    text = body.decode(errors="replace").strip()
    session.print_json({"ok": code == 200, "detail": text}) if session.json else session.print(text)
    return 0 if code == 200 else 1


def told(session: Session) -> Status:
    """What the daemon says of itself. Raises DaemonUnreachable, PermissionMissing."""
    settings = session.load().config.http
    code, body = ask(settings, "/api/v1/status")
    if code != 200:
        raise DaemonUnreachable(f"{_at(settings)} answered {code}", hint="Is it a pgreflex that listens there?")
    try:
        return msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError:
        raise DaemonUnreachable(
            f"what {_at(settings)} answered is not the status of a pgreflex of this version",
            hint="Use the pgreflex that the daemon runs.",
        ) from None


def ask(settings: Http, path: str) -> tuple[int, bytes]:
    """Status and body of a GET. Raises DaemonUnreachable, PermissionMissing."""
    host = EVERY_ADDRESS.get(settings.host, settings.host)
    token = settings.viewer_token or settings.admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    connection = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DaemonUnreachable(
            f"no pgreflex answers at {_at(settings)}: {getattr(error, 'strerror', None) or error}",
            hint="Start one with `pgreflex run`, or name its address (http.host, http.port).",
        ) from error
    finally:
        connection.close()
    if response.status in {401, 403}:
        raise PermissionMissing(
            f"{_at(settings)} wants {'another' if token else 'a'} token",
            hint="Set PGREFLEX_HTTP_VIEWER_TOKEN.",
        )
    return response.status, body


def lines(told: Status) -> list[str]:
    """The status for a person, one fact a line; what is unknown says so."""
    began = datetime.fromtimestamp(told.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = "draining" if told.draining else "ready" if told.ready else "not ready"
    text = [f"pgreflex {told.version}  {told.process}  {state}  since {began}"]
    for service in told.services:
        restarts = f"  {service.restarts} restarts" if service.restarts else ""
        text.append(f"  {'ok ' if service.ok else 'BAD'} {service.name:16} {service.detail}{restarts}".rstrip())
    if (feed := told.feed) is not None:
        state = "connected" if feed.connected else "not connected"
        text.append(f"feed    {state}, {feed.events_total} events, tables watched: {len(feed.watches)}")
        text.append(f"        write to delivery: {_quantiles(feed.write_to_delivery)}")
        text += [f"        {watch.table}: {watch.problem}" for watch in feed.watches if watch.problem]
    if (cache := told.cache) is not None:
        ratio = "unknown" if cache.hit_ratio is None else f"{cache.hit_ratio:.1%}"
        text.append(f"cache   {cache.entries} entries, {cache.bytes} bytes, hit ratio {ratio}")
        fresh = "unknown" if cache.fresh_within_1s is None else nines(cache.fresh_within_1s, cache.checks_total)
        text.append(f"        fresh within 1 s: {fresh}, {cache.checks_total} checked")
        if cache.violations_total:
            text.append(f"        {cache.violations_total} of the checked reads were wrong")
    if (jobs := told.jobs) is not None:
        text.append(f"jobs    {jobs.finished_total} finished, {jobs.failed_total} failed")
        for queue in jobs.queues:
            counts = f"{queue.ready} ready, {queue.delayed} delayed, {queue.running} running"
            text.append(f"        {queue.queue}: {counts}{_held(queue)}")
    text += [f"alert   {alert.rule} {alert.state} ({alert.severity}): {alert.message}" for alert in told.alerts]
    return text


def _quantiles(found: Quantiles) -> str:
    if found.p50 is None or found.p99 is None:
        return "unknown"
    return f"p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms"


def _at(settings: Http) -> str:
    host = EVERY_ADDRESS.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _held(queue: QueueStatus) -> str:
    if queue.paused:
        return ", paused"
    return ", draining" if queue.draining else ""
