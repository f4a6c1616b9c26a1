"""A series of numbers as one line of text.

Owns: the characters and the scale. Must not know what is drawn, nor where.
"""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.,-~+*#"  # where the blocks cannot be written


def sparkline(values: Sequence[float | None], *, blocks: bool = True) -> str:
    """One character for each value: the height is its share of the greatest one, so that 0 is the floor. None is
    a space: what was not measured is not drawn.
    """
    heights = BLOCKS if blocks else PLAIN
    top = max((value for value in values if value is not None), default=0.0)
    return "".join(" " if value is None else heights[_height(value, top, len(heights))] for value in values)


def _height(value: float, top: float, levels: int) -> int:
    return min(int(value / top * levels), levels - 1) if top > 0 else 0
