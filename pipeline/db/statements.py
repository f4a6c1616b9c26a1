"""Finds the SQL that the engine sends.

Owns: where sql/ and triggers/ lie, and their text. Knows nothing of what the statements mean.

In a checkout the two folders stand beside the package `pipeline`; in a wheel they travel inside it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def folder(name: str) -> Path:
    """The folder `sql` or `triggers`. Raises FileNotFoundError when the installation lacks it."""
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"the folder {name}/ is missing from this installation of pgreflex")


@cache
def statement(name: str) -> str:
    """The text of one statement, by its path below sql/ without the ending: `feed/read`."""
    return (folder("sql") / f"{name}.sql").read_text(encoding="utf-8")


def statements() -> list[str]:
    """The names of all statements; migrations and functions are not statements."""
    root = folder("sql")
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.sql"))
    return sorted(name for name in names if name.split("/")[0] not in {"migrations", "functions"})
