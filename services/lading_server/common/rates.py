"""How often keys and entities may call: token buckets. Knows no gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from lading_server.common.callers import Principal
from lading_server.common.registry_errors import RateLimited

# A bucket holds twice a second's tokens, so one that was not used for two seconds is full and can be forgotten. This
# many are remembered, about 2 MB: more would have to call within two seconds for any to be given too much.
_MOST_BUCKETS = 10_000
_BURST_SECONDS = 2


class _Bucket(NamedTuple):
    """How many calls may be made at a moment of the clock."""

    tokens: float
    at_seconds: float


class _Claim(NamedTuple):
    """One token of one bucket that a call needs."""

    scope: str
    name: str
    limit: int


class CallRates:
    """Counts calls against what their keys and entities may. For one event loop; nothing here waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_buckets: int = _MOST_BUCKETS) -> None:
        self._clock = clock
        self._most_buckets = most_buckets
        # The one that was used longest ago is the first.
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, principal: Principal) -> None:
        """Count a call. One that is refused costs nothing.

        Raises:
            RateLimited: The key or the entity called too often; the error says when it may again.
        """
        claims = _claims(principal)
        if not claims:
            return
        now = self._clock()
        left = {claim: self._tokens(claim, now) for claim in claims}
        waits = {claim: (1 - tokens) / claim.limit for claim, tokens in left.items() if tokens < 1}
        if waits:
            longest = max(waits, key=lambda claim: waits[claim])
            raise _too_often(longest, waits[longest])
        for claim, tokens in left.items():
            key = claim.scope, claim.name
            self._buckets.pop(key, None)
            self._buckets[key] = _Bucket(tokens - 1, now)
        while len(self._buckets) > self._most_buckets:
            del self._buckets[next(iter(self._buckets))]

    def _tokens(self, claim: _Claim, now: float) -> float:
        full = float(_BURST_SECONDS * claim.limit)
        bucket = self._buckets.get((claim.scope, claim.name))
        if bucket is None:
            return full
        # The limit may have been another one when it was last used.
        return min(full, bucket.tokens + (now - bucket.at_seconds) * claim.limit)


def _claims(principal: Principal) -> list[_Claim]:
    limits = principal.limits
    claims = [
        _Claim("key", principal.key_id, limits.key.calls_per_second),
        _Claim("entity", principal.entity, limits.entity.calls_per_second),
    ]
    return [claim for claim in claims if claim.limit]


def _too_often(claim: _Claim, wait_seconds: float) -> RateLimited:
    return RateLimited(
        f"the {claim.scope} may make {claim.limit} calls a second, and made more; retry in {wait_seconds:.3f} seconds",
        claim.scope,
        claim.limit,
        wait_seconds,
    )
