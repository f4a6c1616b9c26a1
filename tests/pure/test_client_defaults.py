"""What a client takes from the configuration."""

from __future__ import annotations

import msgspec

import pipeline


def test_a_client_with_defaults_can_report_on_its_cache() -> None:
    client = pipeline.connect("postgresql://nobody@127.0.0.1:1/nowhere")
    assert msgspec.json.encode(client.cache.status())
