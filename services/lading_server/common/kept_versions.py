"""What ingest asks of the registry before it collects: which versions keep their trees.

The registry is behind it in the same process or at the end of a channel.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol


class KeptVersion(NamedTuple):
    """A version whose tree must stay whole: committed, or deleted and not yet purged."""

    uid: bytes
    tree_digest: bytes


class KeptVersions(Protocol):
    """Tells what is kept. Links keep nothing themselves: what they point at does."""

    async def entities(self, after: str, limit: int) -> list[str]:
        """Return the names of up to `limit` entities, sorted, of those that come after a name.

        Raises:
            RegistryUnavailable: The registry does not answer.
        """
        ...

    async def page(self, entity: str, after: bytes, limit: int) -> list[KeptVersion]:
        """Return up to `limit` versions of an entity by their uids, of those that come after one.

        Raises:
            RegistryUnavailable: The registry does not answer.
        """
        ...

    async def expected(self, entity: str, uids: Collection[bytes]) -> set[bytes]:
        """Return which of these versions keep their trees at this moment, or may yet: those being committed, too.

        A version whose pin the registry wants released is not among them.

        Raises:
            RegistryUnavailable: The registry does not answer.
        """
        ...
