"""What a client says in its application's process: nothing on stdout, and the rest through `logging`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import ROOT, clean_environment

PROGRAM = """
import asyncio, logging, os, sys
import pipeline
{setup}
async def main():
    async with pipeline.connect(os.environ["DATABASE_URL"]) as client:
        while not client.pump.leading:
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


def output(dsn: str, setup: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setup=setup)],
        env=clean_environment(DATABASE_URL=dsn, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout, done.stderr


def test_a_client_that_is_well_says_nothing_unasked(dsn: str) -> None:
    out, err = output(dsn, "")
    assert out == ""
    assert "leading the feed" not in err


def test_a_client_logs_through_the_standard_library(dsn: str) -> None:
    out, err = output(dsn, "logging.basicConfig(level='INFO')")
    assert out == ""
    assert "INFO:pgreflex.pump:leading the feed: term=1 epoch=" in err


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_an_application_that_has_set_up_structlog_keeps_its_setting(dsn: str, level: str) -> None:
    setup = (
        "import structlog\n"
        "structlog.configure(processors=[structlog.processors.JSONRenderer()],"
        f" wrapper_class=structlog.make_filtering_bound_logger(logging.{level}))"
    )
    out, _ = output(dsn, setup)
    assert ('"event": "leading the feed"' in out) == (level == "INFO")
