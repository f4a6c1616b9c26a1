"""Lines of the log: their form, and what is never in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from pipeline import log
from pipeline.core.mask import mask_text, mask_value
from pipeline.log import REPEAT_SECONDS, Repeats

SECRETS = {
    "error": "no postgresql://app:hunter2@db/shop",
    "dsn": "host=db password='hunter2 x' user=app",
    "admin_token": "hunter2",
    "headers": {"Authorization": "Bearer hunter2", "Accept": "*/*"},
    "nested": [{"webhook_secret": "hunter2"}, ("password=hunter2",)],
    "cause": ValueError("postgres://app:hun%40ter2@db"),
    "raw": b"password=hunter2",
}


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, log.Bridge)]
    root.setLevel(logging.WARNING)


@pytest.mark.parametrize("form", ["auto", "text", "json"])
def test_no_form_of_the_log_shows_a_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", form, color=False)  # type: ignore[arg-type]
    logger = structlog.get_logger("pgreflex.test")
    logger.warning("cannot reach postgresql://app:hunter2@db", **SECRETS)
    try:
        int("postgresql://app:hunter2@db")
    except ValueError:
        logger.exception("failed")
    logging.getLogger("driver").warning("lost %s", "postgresql://app:hunter2@db")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("********") > len(SECRETS)
    for part in ("hunter2", "hun%40ter2", "hunter2 x"):
        assert part not in told.err


def test_what_is_no_secret_stays_as_it_is() -> None:
    for text in (
        "http://127.0.0.1:8787/status",
        "table public.orders: 5 keys @ 3 s",
        "postgresql://app@db:5432/shop",
        "a bearer of news",
    ):
        assert mask_text(text) in {text, "a bearer ******** news"}
    assert mask_value("queue", "mail") == "mail"
    assert mask_value("took_ms", 3.5) == 3.5


def test_off_a_terminal_a_line_is_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()
    structlog.get_logger("pgreflex.test").info("went well", queue="mail", n=3, text='a "b"\nc')
    line = capsys.readouterr().err
    assert line.startswith("ts=")
    assert line.endswith('level=info logger=pgreflex.test msg="went well" queue=mail n=3 text="a \\"b\\"\\nc"\n')


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")
    structlog.get_logger("pgreflex.test").info("went well", what={"a": object}, n=3)
    told = json.loads(capsys.readouterr().err)
    assert list(told)[:4] == ["ts", "level", "logger", "msg"]
    assert (told["level"], told["logger"], told["msg"], told["n"]) == (
        "info",
        "pgreflex.test",
        "went well",
        3,
    )


def test_what_is_below_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("error")
    structlog.get_logger("pgreflex.test").warning("nobody hears")
    logging.getLogger("driver").warning("this either")
    assert capsys.readouterr().err == ""


def test_an_identical_warning_comes_once_a_minute_and_then_tells_how_many_there_were() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)

    def passes(method: str = "warning", **event: object) -> dict[str, object] | None:
        try:
            return dict(repeats(None, method, {"event": "deaf", **event}))
        except structlog.DropEvent:
            return None

    assert passes() == {"event": "deaf"}
    assert [passes(), passes(), passes()] == [None, None, None]
    assert passes(service="other") == {"event": "deaf", "service": "other"}
    assert passes("info") == passes("info") == {"event": "deaf"}
    now = REPEAT_SECONDS
    assert passes() == {"event": "deaf", "repeated": 3}
    assert passes() is None


def test_counting_repeats_takes_bounded_memory() -> None:
    repeats = Repeats(lambda: 0.0)
    for number in range(5_000):
        repeats(None, "warning", {"event": number})
    assert len(repeats._seen) == log.REMEMBERED


def test_a_log_that_cannot_be_written_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, _text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    log.setup()
    structlog.get_logger("pgreflex.test").warning("unheard")
