"""The composition root: builds every part and hands each what it needs. The only importer of handlers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.app.client import Client, connect

__all__ = ["Client", "connect", "main"]


def main() -> None:
    """The command `pgreflex`."""
    try:
        from pipeline.app.programs import AppPrograms  # noqa: PLC0415 - `import pipeline` must stay light
        from pipeline.cli.program import build  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    build(AppPrograms())()


def __getattr__(name: str) -> Any:
    if name in {"Client", "connect"}:
        from pipeline.app import client  # noqa: PLC0415 - see above

        return getattr(client, name)
    raise AttributeError(f"module 'pipeline.app' has no attribute {name!r}")
