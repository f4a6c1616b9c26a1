"""Imports the modules that users name: their tasks and consumers.

Owns: where such modules are looked for, and the words for one that cannot be imported. Knows nothing of what
they define.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import structlog

from pipeline.errors import TaskError

log = structlog.get_logger("pgreflex.modules")


def load_modules(names: Iterable[str], *, directory: Path | None = None) -> None:
    """Import each module by its dotted name.

    directory: goes to the END of the path, so that a user's own `handlers` cannot shadow ours; None is the
    current one. Raises TaskError that names the module and the line.
    """
    place = str(directory or Path.cwd())
    if place not in sys.path:
        sys.path.append(place)
    for name in names:
        try:
            import_module(name)
        except Exception as error:
            log.debug("a module could not be imported", module=name, exc_info=True)
            raise _explained(name, error, place) from error


def _explained(name: str, error: Exception, place: str) -> TaskError:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (name == missing or name.startswith(f"{missing}.")):
        return TaskError(
            f"there is no module {name}",
            hint=f"Modules are looked for where Python finds them and in {place}; write them with dots, "
            "without .py.",
        )
    if isinstance(error, ValueError | TypeError) and not name.strip("."):
        return TaskError(f"{name!r} is not the name of a module", hint="Write it with dots: shop.tasks")
    where = _where(error)
    return TaskError(
        f"the module {name} cannot be imported: {type(error).__name__}: {error}{where}",
        hint=f"Try `python -c 'import {name}'` in the same directory; --verbose shows the whole traceback.",
    )


def _where(error: Exception) -> str:
    """The line of the user's own code that failed: the last one that importlib does not own."""
    if isinstance(error, SyntaxError):
        return ""  # its text tells file and line already
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
