"""Who keeps content alive: for an operator who wonders why something is still there, or when it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from lading_server.common.settings import Settings
from lading_server.ingest.domain.reachability import PAGES, PageUnreadable, Reachability
from lading_server.ingest.domain.tree_pages import page_blobs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.marks import MarkIndex, digests_in
from lading_server.ingest.index.standings import PackStanding, Standing, StandingIndex
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.trashed import TrashedContent
from lading_server.ingest.packs.storage import PackStorage

# Of each kind of keeper; one is reason enough.
MAX_NAMED = 1000


@dataclass
class Explanation:
    """What there is under a digest, and what keeps it. A list has the first thousand.

    Attributes:
        tree, blob: The state of the tree or blob of that digest; None where there is none.
        is_chunk: Whether it is the digest of a chunk or of a tree's page.
        packs: Where its bytes lie.
        blobs: Blobs that have it as a chunk.
        trees: Trees that have it, itself where it is one; those in the trash too if they have it as a page.
        version_uids: Versions whose pins hold these trees.
        upload_ids: Uploads that lease it.
        session_count: Sessions that lease its packs.
        goes_at_ms: When a collection deletes it, the condemned tree or blob, or else the pack it lies in.
        unreadable_pages: Pages of trees that could not be read: what these name is not known.
    """

    digest: bytes
    tree: Standing | None = None
    blob: Standing | None = None
    is_chunk: bool = False
    packs: list[PackStanding] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    trees: list[bytes] = field(default_factory=list)
    version_uids: list[bytes] = field(default_factory=list)
    upload_ids: list[str] = field(default_factory=list)
    session_count: int = 0
    goes_at_ms: int | None = None
    unreadable_pages: list[bytes] = field(default_factory=list)


class Explainer:
    """Explains what keeps content. Reads all pages of an entity's trees for a blob, and all its recipes for a chunk."""

    def __init__(
        self,
        index: ContentIndex,
        storage: PackStorage,
        workers: Workers,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock
        self._marks = MarkIndex(index.database)
        self._standings = StandingIndex(index.database)
        self._trashed = TrashedContent(index.database)
        self._reachability = Reachability(index, self._marks, storage, workers, window_digests=1)

    async def explain(self, entity: str, digest: bytes) -> Explanation:
        """Explain a digest: a tree's, a blob's, a page's or a chunk's, or several of these at once.

        One that the entity does not have has an explanation in which nothing is there.
        """
        told = Explanation(digest)
        entity_id = await self._index.entities.find(entity)
        if entity_id is None:
            return told
        told.tree = await self._standings.tree(entity_id, digest)
        told.blob = await self._standings.blob(entity_id, digest)
        told.is_chunk = bool(await self._standings.packs_of(entity_id, [digest]))
        await self._add_blobs(told, entity_id)
        await self._add_trees(told, entity, entity_id)
        told.version_uids = await self._standings.pinned_by(entity_id, told.trees, MAX_NAMED)
        await self._add_packs(told, entity_id)
        packs: list[UUID] = [pack.pack for pack in told.packs]
        told.session_count = await self._standings.sessions_with(entity_id, packs, int(self._clock() * 1000))
        told.goes_at_ms = self._goes_at_ms(told)
        return told

    async def _add_blobs(self, told: Explanation, entity_id: int) -> None:
        """Add the blobs and uploads that have the digest as a chunk."""
        if told.blob is not None:
            told.upload_ids += await self._standings.uploads_of(entity_id, told.digest, MAX_NAMED)
        if not told.is_chunk:
            return
        async for part in self._marks.recipe_parts(entity_id):
            is_new = part.blob_digest not in told.blobs[-1:]
            if is_new and len(told.blobs) < MAX_NAMED and told.digest in digests_in(part.refs):
                told.blobs.append(part.blob_digest)
        async for upload_id, refs in self._marks.upload_refs(entity_id):
            is_new = upload_id not in told.upload_ids[-1:]
            if is_new and len(told.upload_ids) < MAX_NAMED and told.digest in digests_in(refs):
                told.upload_ids.append(upload_id)

    async def _add_trees(self, told: Explanation, entity: str, entity_id: int) -> None:
        """Add the tree itself, those that have the digest as a page, and those that name one of the blobs."""
        trees = {told.digest} if told.tree is not None else set()
        if told.is_chunk:
            trees.update(await self._standings.trees_with(entity_id, told.digest, MAX_NAMED))
        blobs = {*told.blobs, *([told.digest] if told.blob is not None else [])}
        after = b""
        while blobs and len(trees) < MAX_NAMED and (pages := await self._marks.pages(entity_id, after, PAGES)):
            after = pages[-1]
            for page in pages:
                try:
                    (payload,) = await self._reachability.read_pages(entity, [page])
                except PageUnreadable:
                    told.unreadable_pages.append(page)
                    continue
                if not blobs.isdisjoint(page_blobs(payload)):
                    trees.update(await self._standings.trees_with(entity_id, page, MAX_NAMED))
        told.trees = sorted(trees)[:MAX_NAMED]

    async def _add_packs(self, told: Explanation, entity_id: int) -> None:
        """Add where the bytes lie: of the chunk, of the tree's pages, of the blob's chunks."""
        wanted = {told.digest}
        if told.tree is not None:
            wanted.update(await self._standings.pages(entity_id, told.digest, MAX_NAMED))
        found = {pack.pack: pack for pack in await self._standings.packs_of(entity_id, wanted)}
        async for part in self._trashed.recipe_parts(entity_id, [told.digest]):
            if len(found) < MAX_NAMED:
                chunks = digests_in(part.refs)
                found |= {pack.pack: pack for pack in await self._standings.packs_of(entity_id, chunks)}
        told.packs = [found[pack] for pack in sorted(found)][:MAX_NAMED]

    def _goes_at_ms(self, told: Explanation) -> int | None:
        content = [one for one in (told.tree, told.blob) if one is not None]
        times = [one.condemned_at_ms for one in content or told.packs]
        known = [one for one in times if one is not None]
        if not known or len(known) < len(times):
            return None
        return max(known) + int(self._settings.trash_seconds * 1000)
