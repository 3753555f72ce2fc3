"""Files whose digests are known from before, and that the entity has: nothing of them is read and nothing sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from lading._digest_cache import DigestCache
from lading._errors import NotFound
from lading._known_digests import KnownDigests
from lading._limits import Limits
from lading._local_files import LocalFile
from lading._model import TreeInfo
from lading._retry import RetryPolicy
from lading._threads import Threads
from lading._transport import Transport
from lading._upload.tree import TreeEntries, tree_digest, tree_info
from lading_format.digest import format_digest
from lading_proto.ingest.v1 import chunks_pb2, trees_pb2


class KnownFiles:
    """What the cache remembers, checked against what the entity has. With no cache, nothing is known."""

    def __init__(
        self,
        transport: Transport,
        entity: str,
        limits: Limits,
        policy: RetryPolicy,
        threads: Threads,
        cache: DigestCache | None,
    ) -> None:
        self._transport = transport
        self._entity = entity
        self._limits = limits
        self._policy = policy
        self._threads = threads
        self._cache = cache

    async def remembered(self, files: Sequence[LocalFile]) -> KnownDigests:
        """Return each file's digest, where the file is as it was when it was hashed."""
        if self._cache is None:
            return KnownDigests(len(files))
        return await self._threads.run(self._cache.lookup, files)

    async def keep_stored(self, digests: KnownDigests) -> None:
        """Forget those digests that the entity does not have."""
        if not digests.are_any:
            return
        for first in range(0, len(digests), self._limits.max_digests_per_call):
            part = digests[first : first + self._limits.max_digests_per_call]
            asked = {digest: format_digest(digest) for digest in part if digest is not None}
            if not asked:
                continue
            request = chunks_pb2.StatBlobsRequest(entity=self._entity, digests=asked.values())
            response = await self._policy.call(
                partial(self._transport.call, self._transport.control.StatBlobs, request)
            )
            missing = set(response.missing_digests)
            for at, digest in enumerate(part, first):
                if digest is not None and asked[digest] in missing:
                    digests[at] = None

    async def stored_tree(self, entries: TreeEntries) -> TreeInfo | None:
        """Return the tree of these entries, if the entity has all of it: then it has every file of it, too."""
        digest = await self._threads.run(tree_digest, entries)
        request = trees_pb2.GetTreeRequest(entity=self._entity, tree_digest=digest)
        try:
            response = await self._policy.call(partial(self._transport.call, self._transport.control.GetTree, request))
        except NotFound:
            return None
        # Of one that is damaged, what is lost is sent again.
        return None if response.damaged else tree_info(response.tree)

    async def remember(self, digests: Iterable[tuple[LocalFile, bytes]], hashed_ns: int) -> None:
        """Keep digests of files that were just read, from `hashed_ns` on."""
        if self._cache is not None:
            await self._threads.run(self._cache.remember, digests, hashed_ns)
