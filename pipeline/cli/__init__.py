"""The command line: one file a verb.

Owns: arguments, what is printed, exit statuses. Knows neither the composition root nor the consumers: what a
verb cannot do through pipeline.db comes in as Programs.
"""

from __future__ import annotations

from pipeline.cli.program import build
from pipeline.cli.session import Programs

__all__ = ["Programs", "build"]
