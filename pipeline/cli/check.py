"""`pgreflex check`: what is configured, and whether it will work."""

from __future__ import annotations

import ipaddress

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.config import Config, Loaded
from pipeline.core.checkup import Finding, judge, worst
from pipeline.db.checkup import examine
from pipeline.errors import TaskError
from pipeline.modules import load_modules

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command(cls=Verb, short_help="Check the configuration and the server.")
@pass_session
def check(session: Session) -> int:
    """Print every setting with its source, then try what pgreflex needs.

    Exits with 1 if there is a problem. Example: pgreflex check --json
    """
    loaded = session.load()
    config = loaded.config
    facts = session.wait(examine(config.dsn, config.listening_dsn))
    findings = [*judge(facts, two_phase=config.feed.two_phase), *_own(config)]
    if session.json:
        _print_json(session, loaded, findings)
    else:
        _print(session, loaded, findings)
    return 1 if worst(findings) == "problem" else 0


def _own(config: Config) -> list[Finding]:
    """What can be told without a server."""
    found = []
    if config.imports:
        try:
            load_modules(config.imports)
            found.append(Finding("ok", "imports", ", ".join(config.imports)))
        except TaskError as error:
            found.append(Finding("problem", "imports", error.message, error.hint))
    if not _is_loopback(config.http.host) and config.http.viewer_token is None:
        found.append(
            Finding(
                "problem",
                "http",
                f"{config.http.host} is not a loopback address and no viewer token is set",
                "Set http.viewer_token, for example to the output of `openssl rand -hex 32`.",
            )
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _print(session: Session, loaded: Loaded, findings: list[Finding]) -> None:
    rows = [[setting.key, setting.value, setting.source] for setting in loaded.settings()]
    session.print_table(["setting", "value", "source"], rows)
    out = session.out()
    out.print()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        out.print(f"{finding.level:8}", style=STYLES[finding.level], end=" ")
        out.print(f"{finding.subject:{width}}  {finding.detail}", markup=False, soft_wrap=True)
        for line in finding.hint.splitlines():
            out.print(f"{'':{width + 11}}{line}", style="dim", markup=False, soft_wrap=True)


def _print_json(session: Session, loaded: Loaded, findings: list[Finding]) -> None:
    settings = [vars(setting) for setting in loaded.settings()]
    session.print_json({"result": worst(findings), "settings": settings, "findings": findings})
