"""`pgreflex version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

from pipeline import __version__
from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session

LIBRARIES = ("asyncpg", "aiohttp", "uvloop", "msgspec", "pydantic")


@click.command(cls=Verb, short_help="Print versions.")
@pass_session
def version(session: Session) -> None:
    """Print the version of pgreflex, of Python and of the libraries that matter.

    Example: pgreflex version --json
    """
    versions = {"pgreflex": __version__, "python": platform.python_version()}
    versions |= {name: _version_of(name) for name in LIBRARIES}
    if session.json:
        session.print_json(versions)
    else:
        for name, text in versions.items():
            session.print(f"{name:10}{text}")


def _version_of(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "unknown"
