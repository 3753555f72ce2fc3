"""What is known of one call: its bytes, its entity, and how it ended. Tells the log and the metrics once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from lading_server.common.callers import Principal
from lading_server.common.logs import FIELDS
from lading_server.common.metrics import Metrics

_log = logging.getLogger("lading.calls")

# The longest name that an entity may have; whatever else a caller writes there is not copied into the log.
_ENTITY_LENGTH = 64


class MalformedMessage(Exception):
    """The bytes of a message are not of the type that the rpc takes."""


class Call:
    """One call, from its first byte to its one log line."""

    def __init__(self, method: str, metrics: Metrics) -> None:
        self.method = method
        self.peer = ""
        self._caller = ""
        self.status = "OK"
        self.error = ""
        self.received_bytes = 0
        self._sent_bytes = 0
        self._entity = ""
        self._metrics = metrics
        self._began = time.monotonic()
        self._is_told = False

    def acted_for(self, principal: Principal) -> None:
        """Note who makes the call. The id of a key is no secret."""
        self._caller = f"{principal.name}/{principal.key_id}" if principal.key_id else principal.name

    def decoding(self, decode: Callable[[bytes], Any], *, is_stream: bool) -> Callable[[bytes], Any]:
        """Return the deserializer that counts.

        Here a message's length is known for nothing; `ByteSize` would serialize it again. What cannot be parsed is
        raised as MalformedMessage where a stream reads; a single request is handed to the handler in its place,
        because grpc decodes it before any code of ours is called.
        """

        def counted(raw: bytes) -> Any:
            self.received_bytes += len(raw)
            try:
                message = decode(raw)
            except DecodeError as error:
                malformed = MalformedMessage(str(error))
                if is_stream:
                    raise malformed from error
                return malformed
            if not self._entity:
                start = getattr(message, "start", None)
                self._entity = str(getattr(message, "entity", "") or getattr(start, "entity", ""))[:_ENTITY_LENGTH]
            return message

        return counted

    def encoding(self, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """Return the serializer that counts."""

        def counted(message: Any) -> bytes:
            raw = encode(message)
            self._sent_bytes += len(raw)
            return raw

        return counted

    def ended(self, error: BaseException | None = None) -> None:
        """Write the log line and the metrics, unless that was done.

        Args:
            error: What nobody expected; its traceback goes to the log.
        """
        if self._is_told:
            return
        self._is_told = True
        seconds = time.monotonic() - self._began
        self._metrics.call_ended(self.method, self.status, seconds, self.received_bytes, self._sent_bytes)
        fields = {
            "method": self.method,
            "caller": self._caller,
            "peer": self.peer,
            "entity": self._entity,
            "status": self.status,
            "milliseconds": round(seconds * 1000, 3),
            "received_bytes": self.received_bytes,
            "sent_bytes": self._sent_bytes,
        }
        if self.error:
            fields["error"] = self.error
        level = logging.INFO if error is None else logging.ERROR
        _log.log(level, "call", exc_info=error, extra={FIELDS: fields})
