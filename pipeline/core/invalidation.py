"""What `pipeline.invalidate` says on the feed.

Owns: the channel and the form of the payload. Knows nothing of what is done with it.

Anybody who may use the schema may emit on this channel, so that what cannot be read is told apart and ignored.
"""

from __future__ import annotations

import msgspec

CHANNEL = "pipeline.invalidate"


class Invalidation(msgspec.Struct, frozen=True):
    """Tags that somebody says have changed, and what further such tags begin with; "" is everything."""

    tags: tuple[str, ...] = ()
    prefix: str | None = None


_decoder = msgspec.json.Decoder(Invalidation)


def parse(payload: str | None) -> Invalidation | None:
    """None: it is something else."""
    try:
        return _decoder.decode(payload or "")
    except msgspec.DecodeError:
        return None
