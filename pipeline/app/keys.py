"""Makes what encrypts arguments from the keys that were configured.

Owns: where the bytes of chance come from. Knows nothing of the cipher.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.config import Config
from pipeline.core.seal import Sealer, key_of


def sealer(keys: Sequence[str]) -> Sealer:
    """A sealer with these keys, as they are written. Raises ValueError for what is no key."""
    return Sealer([key_of(key) for key in keys], os.urandom)


def sealer_of(config: Config) -> Sealer:
    """A sealer with the keys of a configuration."""
    return sealer([key.get_secret_value() for key in config.jobs.encryption_keys])
