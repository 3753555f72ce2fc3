"""The client of ingest alone: content in and out, by digest, where there is no registry or none is wanted."""

from __future__ import annotations

from types import TracebackType

from lading._address import parse_address
from lading._cache.local import LocalCache
from lading._content import Content
from lading._model import StrPath
from lading._retry import RetryPolicy
from lading._transport import Transport
from lading._trust import check_trust, trust_from


class IngestClient(Content):
    """Stores and fetches content: trees of files, and single files, named by their digests.

    An async context manager. Opens no connection before the first call. For one event loop at a time; any number of
    its tasks may use it. What a fork means is said at Client.

    Every method repeats calls that failed for a passing reason, and raises Unavailable (or OutcomeUnknown, or Busy)
    when there was no progress for `retry` seconds. Reads no settings but its arguments.
    """

    def __init__(
        self,
        address: str,
        *,
        entity: str,
        api_key: str | None = None,
        ca_file: StrPath | None = None,
        client_cert: StrPath | None = None,
        client_key: StrPath | None = None,
        retry: RetryPolicy | float = 120.0,
        cache: LocalCache | None = None,
    ) -> None:
        """Make a client.

        Args:
            address: `host:port`, `grpc://host:port`, or `grpcs://host:port` for TLS.
            entity: The tenant whose content this is about.
            api_key: A key for this entity, where the server wants one.
            ca_file: Whose certificates to believe, PEM. Default: whose the system believes.
            client_cert: A certificate to show with its chain, PEM, where the server wants one.
            client_key: Its key.
            retry: For how many seconds without progress to try again; or a whole policy.
            cache: Files that this machine has had: `LocalCache.from_environment()` is the user's. Default: none.

        Raises:
            InvalidArgument: The address is malformed, or has no TLS for the certificates.
        """
        policy = retry if isinstance(retry, RetryPolicy) else RetryPolicy(retry_seconds=retry)
        parsed, trust = parse_address(address), trust_from(ca_file, client_cert, client_key, {})
        check_trust(trust, parsed)
        super().__init__(Transport(parsed, api_key or "", trust), entity, policy, cache=cache)

    async def __aenter__(self) -> IngestClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
