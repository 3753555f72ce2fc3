"""Keys that were good go on reading while the registry is away. Knows no gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from lading_server.common.access import KeyGrant, RememberedKeys
from lading_server.common.registry_errors import KeysUnavailable

_log = logging.getLogger(__name__)

# For how long it is believed that the registry is still away. While calls come it is asked all the time; when none came
# for longer it may be back, and keys may have been revoked.
_AWAY_SECONDS = 5.0


class KeysForReading:
    """A KeyChecker that takes remembered keys for longer while the registry does not answer. For one event loop.

    While the registry answers it is as RememberedKeys, and so a key that was revoked ends as soon. Once it did not,
    calls with remembered keys wait for it no more: it is asked in the background, one question at a time, until it
    answers again. When nobody called for a while, the next call waits for its answer first. A key that is not
    remembered is asked for as ever.
    """

    def __init__(
        self, remembered: RememberedKeys, grace_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`grace_seconds`: for how long, after the time that the keys are believed anyway."""
        self._remembered = remembered
        self._grace_seconds = grace_seconds
        self._clock = clock
        # When it last did not answer; None once it did.
        self._seen_away: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker."""
        recalled = self._remembered.recall(key_id, secret_hash, self._grace_seconds)
        if recalled is not None and self._is_away():
            self._ask_again(key_id, secret_hash)
            return recalled
        try:
            grant = await self._remembered.check(key_id, secret_hash)
        except KeysUnavailable:
            # Again: what was remembered may have been forgotten meanwhile.
            recalled = self._remembered.recall(key_id, secret_hash, self._grace_seconds)
            if recalled is None:
                raise
            self._seen_away = self._clock()
            _log.warning("the registry is away; keys that were good may read for %g seconds", self._grace_seconds)
            return recalled
        self._seen_away = None
        return grant

    def _is_away(self) -> bool:
        if self._seen_away is None:
            return False
        is_asked = self._asking is not None and not self._asking.done()
        return is_asked or self._clock() < self._seen_away + _AWAY_SECONDS

    def _ask_again(self, key_id: str, secret_hash: bytes) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(key_id, secret_hash), name="is-the-registry-back")

    async def _ask(self, key_id: str, secret_hash: bytes) -> None:
        try:
            await self._remembered.ask(key_id, secret_hash)
        except KeysUnavailable:
            self._seen_away = self._clock()
            return
        except Exception:  # noqa: BLE001 - logged with its traceback; the next call asks again
            _log.exception("asking whether the registry is back failed")
            return
        self._seen_away = None
        _log.info("the registry answers again")
