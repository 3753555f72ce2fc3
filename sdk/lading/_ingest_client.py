"""The client of ingest alone: content in and out, by digest, where there is no registry or none is wanted."""

from __future__ import annotations

from types import TracebackType

from lading._address import parse_address
from lading._content import Content
from lading._retry import RetryPolicy
from lading._transport import Transport


class IngestClient(Content):
    """Stores and fetches content: trees of files, and single files, named by their digests.

    An async context manager. Opens no connection before the first call. For one event loop at a time; any number of
    its tasks may use it. What a fork means is said at Client.

    Every method repeats calls that failed for a passing reason, and raises Unavailable (or OutcomeUnknown, or Busy)
    when there was no progress for `retry` seconds. Reads no settings but its arguments.
    """

    def __init__(
        self, address: str, *, entity: str, api_key: str | None = None, retry: RetryPolicy | float = 120.0
    ) -> None:
        """Make a client.

        Args:
            address: `host:port`, `grpc://host:port`, or `grpcs://host:port` for TLS.
            entity: The tenant whose content this is about.
            api_key: A key for this entity, where the server wants one.
            retry: For how many seconds without progress to try again; or a whole policy.

        Raises:
            InvalidArgument: The address is malformed.
        """
        policy = retry if isinstance(retry, RetryPolicy) else RetryPolicy(retry_seconds=retry)
        super().__init__(Transport(parse_address(address), api_key or ""), entity, policy)

    async def __aenter__(self) -> IngestClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
