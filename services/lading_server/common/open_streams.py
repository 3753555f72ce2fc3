"""How many streams are open: in all, of each entity and of each key. Knows no gRPC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lading_server.common.callers import Principal
from lading_server.common.errors import TooManyStreams

_SERVER = ("server", "")


class OpenStreams:
    """Counts open streams against what the server, their entities and their keys may have. For one event loop.

    Remembers nothing of what has no stream open, so it is bounded by the streams of the server.
    """

    def __init__(self, max_streams: int, on_change: Callable[[int], None]) -> None:
        """`on_change` is told how many are open in all."""
        self._max_streams = max_streams
        self._on_change = on_change
        self._open: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self._open[_SERVER]

    @contextmanager
    def one_more(self, principal: Principal) -> Iterator[None]:
        """Count a stream for the length of the block. Raises TooManyStreams."""
        limits = {
            _SERVER: self._max_streams,
            ("entity", principal.entity): principal.limits.entity.streams,
            ("key", principal.key_id): principal.limits.key.streams,
        }
        for (scope, name), limit in limits.items():
            if limit and self._open[scope, name] >= limit:
                raise _too_many(scope, limit)
        self._open.update(limits.keys())
        self._on_change(len(self))
        try:
            yield
        finally:
            self._open.subtract(limits.keys())
            # Without what is 0 now.
            self._open = +self._open
            self._on_change(len(self))


def _too_many(scope: str, limit: int) -> TooManyStreams:
    return TooManyStreams(
        f"{limit} streams of the {scope} are open, which is the limit; end one, or retry with backoff",
        scope=scope,
        limit=limit,
    )
