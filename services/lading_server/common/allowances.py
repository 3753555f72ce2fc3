"""What an entity, and each of its keys, may use. Pure."""

from __future__ import annotations

from typing import NamedTuple

from lading_server.common.settings import Settings


class Allowance(NamedTuple):
    """How much of each somebody may use; 0 is no limit."""

    # Of content, after deduplication. Not for keys.
    stored_bytes: int = 0
    # Streaming calls that are open at once.
    streams: int = 0
    # With bursts of twice as many.
    calls_per_second: int = 0


class Allowances(NamedTuple):
    """Of an entity, all its keys together, and of each of its keys."""

    entity: Allowance = Allowance()
    key: Allowance = Allowance()


UNLIMITED = Allowances()


def default_allowances(settings: Settings) -> Allowances:
    """Return what counts for an entity that the operator set no limits for."""
    return Allowances(
        entity=Allowance(
            stored_bytes=settings.default_quota_bytes,
            streams=settings.max_streams_per_entity,
            calls_per_second=settings.calls_per_second_per_entity,
        ),
        key=Allowance(
            streams=settings.max_streams_per_key,
            calls_per_second=settings.calls_per_second_per_key,
        ),
    )


def keyless_allowances(settings: Settings) -> Allowances:
    """Return what counts where the server asks for no keys: what is told apart there is the content of entities."""
    return Allowances(entity=Allowance(stored_bytes=settings.default_quota_bytes))
