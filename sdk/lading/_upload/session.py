"""The lease on the chunks of one upload: opened when first needed, replaced when it lapsed."""

from __future__ import annotations

import asyncio

from lading._errors import LadingError, SessionExpired
from lading._transport import Transport
from lading_proto.ingest.v1 import chunks_pb2

_CLOSE_SECONDS = 5.0


class Session:
    """One upload's lease. Safe for many tasks at once."""

    def __init__(self, transport: Transport, entity: str) -> None:
        self.entity = entity
        self._transport = transport
        self._session_id = ""
        self._lock = asyncio.Lock()

    async def current_id(self) -> str:
        """Return the session's id; open one if there is none. Whoever needs it tries again when that fails."""
        async with self._lock:
            if not self._session_id:
                request = chunks_pb2.OpenSessionRequest(entity=self.entity)
                response = await self._transport.call(self._transport.control.OpenSession, request)
                self._session_id = response.session_id
            return self._session_id

    def note(self, error: LadingError, used_id: str) -> bool:
        """Forget the session when the error says that it lapsed; return whether it did.

        Args:
            error: What a call under the session raised.
            used_id: The session that the call was under: another task may have noticed before.
        """
        if not isinstance(error, SessionExpired):
            return False
        if used_id == self._session_id:
            self._session_id = ""
        return True

    async def close(self) -> None:
        """End the lease. A failure is of no consequence: it lapses by itself."""
        if self._session_id:
            request = chunks_pb2.CloseSessionRequest(entity=self.entity, session_id=self._session_id)
            try:
                await self._transport.call(self._transport.control.CloseSession, request, timeout=_CLOSE_SECONDS)
            except LadingError:
                return
