"""What a registry keeps, as a test says it, for the reconciler and the collector to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from lading_server.common.kept_versions import KeptVersion
from lading_server.common.registry_errors import RegistryUnavailable


class VersionsInMemory:
    """KeptVersions of a registry that the test is.

    Attributes:
        kept: The tree of each kept version, by entity and uid.
        committing: Versions that are not listed, and expected all the same.
        releasing: Versions that are not expected, even where they are listed.
        is_away: Whether every call fails.
        pages: How often a page was asked for.
        after_page: Called when a page was read and before it is given: for what happens at the same time.
        after_expected: The same, for the other question.
    """

    def __init__(self) -> None:
        self.kept: dict[str, dict[bytes, bytes]] = {}
        self.committing: set[bytes] = set()
        self.releasing: set[bytes] = set()
        self.is_away = False
        self.pages = 0
        self.after_page: Callable[[], Awaitable[object]] | None = None
        self.after_expected: Callable[[], Awaitable[object]] | None = None

    def keep(self, uid: bytes, tree_digest: bytes, entity: str = "acme") -> bytes:
        """Keep a version; return its uid."""
        self.kept.setdefault(entity, {})[uid] = tree_digest
        return uid

    async def entities(self, after: str, limit: int) -> list[str]:
        self._answer()
        return sorted(name for name in self.kept if name > after)[:limit]

    async def page(self, entity: str, after: bytes, limit: int) -> list[KeptVersion]:
        self._answer()
        self.pages += 1
        listed = sorted(self.kept.get(entity, {}).items())
        found = [KeptVersion(*item) for item in listed if item[0] > after][:limit]
        if self.after_page is not None:
            await self.after_page()
        return found

    async def expected(self, entity: str, uids: Collection[bytes]) -> set[bytes]:
        self._answer()
        found = (self.kept.get(entity, {}).keys() | self.committing) & set(uids) - self.releasing
        if self.after_expected is not None:
            await self.after_expected()
        return found

    def _answer(self) -> None:
        if self.is_away:
            raise RegistryUnavailable("the registry does not answer")
