"""Each kind of channel against a real far end: what it sends, and what becomes of a refusal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from handlers.channels import Channel, NotAccepted
from handlers.channels.command import Command
from handlers.channels.email import Email, Server
from handlers.channels.others import Log, Notify
from handlers.channels.slack import Slack
from handlers.channels.webhook import Webhook
from pipeline.app.alerting import channel_of, targets
from pipeline.config import Config
from pipeline.config_channels import Channel as Settings
from pipeline.core.alert_message import Line, Notification
from pipeline.db.alert_delivery import DeliveryStore
from pipeline.db.connection import Database
from pipeline.errors import ConfigError
from pipeline.web.outgoing import Poster
from tests.channel_kit import hooks
from tests.conftest import eventually

LINE = Line("firing", "fire", "", "critical", "it <!channel> & burns", 1, 1_800_000_000.0)
SAID = Notification(
    "7d8f", 1_800_000_000.0, "new", "firing", "critical", ("fire\r\nBcc: all@example.org",), 1, 0, (LINE,)
)


async def refusal(channel: Channel) -> NotAccepted:
    with pytest.raises(NotAccepted) as refused:
        await channel.send(SAID)
    return refused.value


class Mail:
    """A mail server of a few words. answers: by verb, in place of the usual ones; `hang` never answers."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.mails: list[str] = []
        self.verbs: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        try:
            while line := (await reader.readline()).decode().strip():
                verb = line.split()[0].upper()
                self.verbs.append(verb)
                answer = self.answers.get(verb, {"DATA": "354 go on", "QUIT": "221 bye"}.get(verb, "250 ok"))
                if answer == "hang":
                    await asyncio.Event().wait()
                if answer == "close":
                    return
                writer.write(f"{answer}\r\n".encode())
                if answer.startswith("354"):
                    mail = await reader.readuntil(b"\r\n.\r\n")
                    self.mails.append(mail.decode())
                    writer.write(f"{self.answers.get('mail', '250 taken')}\r\n".encode())
                if verb == "QUIT":
                    return
        finally:
            writer.close()


@asynccontextmanager
async def mail_server(**answers: str) -> AsyncIterator[tuple[Mail, Email]]:
    mail = Mail(**answers)
    server = await asyncio.start_server(mail.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        far_end = Server("127.0.0.1", port, "none", user="u" if "AUTH" in answers else None, password="pw")
        yield mail, Email(far_end, sender="pg@example.org", to=["ops@example.org", "two@example.org"])
    finally:
        server.close()


async def test_a_mail_has_the_id_and_nobody_writes_its_headers() -> None:
    async with mail_server() as (server, email):
        await email.send(SAID)
    [mail] = server.mails
    headers, _, body = mail.partition("\r\n\r\n")
    assert "Subject: [critical] fire Bcc: all@example.org\r\n" in headers + "\r\n"
    assert "Message-ID: <7d8f@pgreflex>" in headers
    assert not any(line.startswith("Bcc") for line in headers.splitlines())
    assert "it <!channel> & burns" in body


@pytest.mark.parametrize(
    ("answers", "permanent", "reason"),
    [
        ({"MAIL": "451 later"}, False, "answered 451"),
        ({"MAIL": "550 never"}, True, "answered 550"),
        ({"RCPT": "550 nobody"}, True, "refused the recipients"),
        ({"RCPT": "450 greylisted"}, False, "refused the recipients"),
        ({"mail": "554 spam"}, True, "answered 554"),
        ({"EHLO": "250-here\r\n250 AUTH PLAIN", "AUTH": "535 no"}, True, "refused the login"),
        ({"DATA": "close"}, False, "cannot be reached"),
    ],
)
async def test_a_mail_that_is_refused_comes_again_unless_that_is_for_good(
    answers: dict[str, str], permanent: bool, reason: str
) -> None:
    async with mail_server(**answers) as (_server, email):
        error = await refusal(email)
    assert (error.permanent, reason in str(error)) == (permanent, True)


@pytest.mark.parametrize("end", ["close", "421 going"])
async def test_a_mail_that_was_taken_is_told_whatever_follows(end: str) -> None:
    async with mail_server(QUIT=end) as (server, email):
        await email.send(SAID)
    assert len(server.mails) == 1


async def test_a_mail_server_that_is_not_there_or_offers_no_encryption_is_named_without_secrets() -> None:
    async with mail_server() as (_server, email):
        port = email._server.port
        secured = Email(Server("127.0.0.1", port, "starttls", "u", "s3cret"), sender="a@b", to=["c@d"])
        assert (await refusal(secured)).permanent
    error = await refusal(secured)
    assert (str(error), error.permanent) == ("the mail server cannot be reached: ConnectionRefusedError", False)
    assert "s3cret" not in repr(secured._server)


async def test_a_command_gets_json_and_the_id_but_no_secret_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGREFLEX_DSN", "postgresql://u:s3cret@h/d")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@h/d")
    kept = tmp_path / "kept.json"
    code = (
        "import json, os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        f"json.dump([json.load(sys.stdin), dict(os.environ), child.pid], open({str(kept)!r}, 'w'))"
    )
    await Command([sys.executable, "-c", code]).send(SAID)
    body, environment, child = json.loads(kept.read_text())
    assert (body["id"], environment["PGREFLEX_NOTIFICATION_ID"]) == ("7d8f", "7d8f")
    assert not any("s3cret" in value for value in environment.values())
    await eventually(lambda: not running(child))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("argv", "permanent", "reason"),
    [
        (["false"], False, "false ended with 1"),
        (["sh", "-c", "exit 65"], True, "sh ended with 65"),
        (["/nowhere/program"], True, "/nowhere/program cannot be run: No such file or directory"),
        (["sleep", "3600"], False, "sleep did not end within 0.2 s"),
        (["sh", "-c", "exec 0<&-; exit 3"], False, "sh ended with 3"),
    ],
)
async def test_a_command_that_fails_says_so(argv: list[str], permanent: bool, reason: str) -> None:
    error = await refusal(Command(argv, seconds=0.2 if argv[0] == "sleep" else 30))
    assert (str(error), error.permanent) == (reason, permanent)


async def test_notify_carries_json_and_leaves_out_what_does_not_fit(dsn: str, sql: asyncpg.Connection) -> None:
    heard: list[str] = []
    await sql.add_listener("ops", lambda *args: heard.append(str(args[-1])))
    lines = tuple(Line("firing", f"r{n}", "", "info", "x" * 900, 1, 1.0) for n in range(50))
    groups = tuple("g" * 200 for _ in range(50))
    async with Database(dsn) as db:
        store = DeliveryStore(db)
        channel = Notify(lambda payload: store.notify("ops", payload))
        for said in (SAID, Notification("1", 1.0, "new", "firing", "info", ("a",), 50, 0, lines)):
            await channel.send(said)
        await channel.send(Notification("2", 1.0, "new", "firing", "info", groups, 50, 0, lines))
        await eventually(lambda: len(heard) == 3)
    bodies = [json.loads(payload) for payload in heard]
    assert [body["id"] for body in bodies] == ["7d8f", "1", "2"]
    assert [(body["firing"], len(body["alerts"])) for body in bodies] == [(1, 1), (50, 6), (50, 0)]


async def test_a_chat_is_told_in_its_form_and_nobody_is_called() -> None:
    poster = Poster()
    async with hooks("/chat") as [chat]:
        await Slack(chat.url, poster.post).send(SAID)
        [body] = chat.told
    [attachment] = body["attachments"]
    assert body["text"] == "[critical] fire\r\nBcc: all@example.org"
    assert (attachment["color"], attachment["text"]) == ("#c62828", "it &lt;!channel&gt; &amp; burns")
    await poster.close()


@pytest.mark.parametrize(
    ("url", "permanent", "reason"),
    [
        ("http://127.0.0.1:1/secret", False, "the webhook: the server cannot be reached"),
        ("http://name.invalid/secret", False, "the webhook: the name of the server cannot be resolved"),
        ("nonsense secret", True, "the webhook: the address is not one of http or https"),
        ("ftp://example.org/secret", True, "the webhook: the address is not one of http or https"),
    ],
)
async def test_a_webhook_that_cannot_be_reached_is_named_without_its_address(
    url: str, permanent: bool, reason: str
) -> None:
    poster = Poster()
    error = await refusal(Webhook(url, poster.post))
    await poster.close()
    assert str(error).startswith(reason)
    assert "secret" not in str(error)
    assert error.permanent is permanent


async def test_the_log_tells_each_alert() -> None:
    with capture_logs() as told:
        await Log().send(Notification("9", 1.0, "new", "firing", "critical", ("a",), 3, 0, (LINE,)))
    assert [entry["event"] for entry in told] == ["alert firing", "further alerts are not listed"]
    assert (told[0]["log_level"], told[1]["count"]) == ("error", 2)


async def nothing(*_args: object) -> None:
    raise AssertionError


def made(**settings: object) -> Channel:
    return channel_of("ops", Settings(**settings), nothing, nothing)  # type: ignore[arg-type]


def test_secrets_come_from_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://env")
    (tmp_path / "secret").write_text("from file\n")
    channel = made(type="webhook", url="env:HOOK", secret=f"file:{tmp_path}/secret")
    assert isinstance(channel, Webhook)
    assert (channel._url, channel._secret) == ("http://env", "from file")
    plain = made(type="slack", url="https://plain")
    assert isinstance(plain, Slack)
    assert plain._url == "https://plain"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("env:NOT_THERE", "alerts.channels.ops.url names the variable NOT_THERE, which is not set"),
        ("file:/nowhere", "alerts.channels.ops.url names /nowhere, which cannot be read"),
    ],
)
def test_a_secret_that_is_not_there_is_named(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        made(type="webhook", url=url)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match="a library that is not installed") as missing:
        made(type="apprise", urls=["json://localhost"])
    assert missing.value.hint == "Install it with: pip install 'pgreflex[apprise]'"


def test_the_log_and_the_webhook_of_the_old_settings_are_channels() -> None:
    config = Config(alerts={"webhook_url": "http://x", "channels": {"chat": {"type": "slack", "url": "http://y"}}})
    assert [target.route.channel for target in targets(config, nothing, nothing)] == ["log", "chat", "webhook"]  # type: ignore[arg-type]
    clash = {"webhook_url": "http://x", "channels": {"webhook": {"type": "log"}}}
    with pytest.raises(ConfigError, match="both set the channel webhook"):
        targets(Config(alerts=clash), nothing, nothing)  # type: ignore[arg-type]
