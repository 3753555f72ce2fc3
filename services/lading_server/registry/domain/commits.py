"""Commits: an intent, a pin, and then the version, so that a version that is told is whole at ingest for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from lading_format.errors import ReasonedError
from lading_server.common.callers import Caller
from lading_server.common.errors import Draining
from lading_server.common.ids import uuid7
from lading_server.common.pins import ContentPins, PinnedTree
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import change_aliases, check_changes
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.collections import kind_of
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.documents import parse_metadata
from lading_server.registry.domain.limits import changed_tags
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.domain.time_to_live import end_of_new, later
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_changes import create_collection
from lading_server.registry.store.pending import add_commit, end_commit, release_pin
from lading_server.registry.store.rows import CollectionHead, Expiry, NewVersion, PendingCommit
from lading_server.registry.store.store import RegistryStore
from lading_server.registry.store.version_changes import (
    add_output,
    add_version,
    find_run,
    update_version,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commits:
    """Gives trees numbers.

    Guarantee: a version that anybody can see has a pin. The intent (a row of `commits`) is durable before the pin is
    asked for, and goes in the transaction that makes the version or in the one that has the pin released; whoever
    deletes it decides which. So a crash at any moment leaves either a version, or an intent that is resumed, or a pin
    that is released.

    A commit that was begun is not stopped when its caller goes away.
    """

    settings: Settings
    store: RegistryStore
    pins: ContentPins
    closing: Closing
    # Told that there is a pin to release.
    on_release: Callable[[], object]
    # The versions that are being committed by this process.
    in_flight: set[bytes] = field(default_factory=set)
    _flows: set[asyncio.Task[Outcome]] = field(default_factory=set)

    async def commit(self, caller: Caller, request: CommitRequest) -> Outcome:
        """Name a tree; where the collection has a version of it, that one gets aliases, tags and the run.

        Raises:
            InvalidName, InvalidMetadata, TextTooLong, TooManyItems, InvalidRange, RequestIdReused: The request cannot
                be taken.
            WrongKind, TypeMismatch, RunNotFound: It does not go with what is there.
            AliasNotFound, AliasMoved: See `plan_moves`. Nothing was changed.
            AliasProtected, AliasRequires: See `hold_against`. Nothing was changed.
            TreeNotFound, MissingBlobs: Ingest does not have the tree, or not all of it.
            IngestUnavailable: Ingest does not answer. Nothing was changed.
            Draining: The server stops; the commit may be finished when it starts again.
        """
        flow = asyncio.create_task(self._commit(caller, request.checked(self.settings)), name="commit")
        self._flows.add(flow)
        flow.add_done_callback(self._ended)
        return await asyncio.shield(flow)

    async def resume(self, pending: PendingCommit) -> None:
        """Finish a commit that a crash left, or abort it when that cannot be.

        Raises:
            IngestUnavailable: Ingest does not answer; the commit is as it was.
            Draining: The server stops; the commit is as it was.
        """
        caller, request = CommitRequest.from_json(pending.entity, pending.request)
        try:
            tree = await self.closing.unless(self.pins.acquire(pending.entity, pending.uid, request.tree_digest))
            await self._finish(caller, request, pending.uid, tree)
            _log.info("commit %s to %s/%s was resumed", pending.uid.hex(), request.project, request.collection)
        except (IngestUnavailable, Draining):
            raise
        except ReasonedError as error:
            _log.warning("commit %s is aborted: %s", pending.uid.hex(), error.message)
            await self._abort(pending.uid)

    async def close(self) -> None:
        """Wait for the transactions at hand. What waits for ingest gives up, and is resumed at the next start."""
        await asyncio.gather(*self._flows, return_exceptions=True)

    def _ended(self, flow: asyncio.Task[Outcome]) -> None:
        self._flows.discard(flow)
        # Asked for, so that asyncio does not complain of a caller who went away; whoever stayed was told.
        if not flow.cancelled() and flow.exception() is not None:
            _log.debug("a commit ended with %r", flow.exception())

    async def _commit(self, caller: Caller, request: CommitRequest) -> Outcome:
        # Once, unless another process that was just started resumes this commit and makes no version of it.
        while True:
            uid = uuid7().bytes
            self.in_flight.add(uid)
            try:
                outcome = await self._begin(caller, request, uid)
                if outcome is None:
                    outcome = await self._pin_and_finish(caller, request, uid)
            finally:
                self.in_flight.discard(uid)
            if outcome is not None:
                return outcome

    async def _begin(self, caller: Caller, request: CommitRequest, uid: bytes) -> Outcome | None:
        """Return what the commit comes to without a pin, or None when the intent was written."""
        async with self.store.change(caller) as change:
            collection, same = await self._find(change, request)
            outcome = await self._without_pin(change, request, collection, same)
            if outcome is None:
                # Checked again when it counts; here, so that what cannot be costs no pin.
                if request.run:
                    await find_run(change, request.run)
                key = collection.key if collection is not None else None
                place = request.project, request.collection
                await check_changes(change, key, place, request.aliases, request.qualities())
                await add_commit(change, uid, request.to_json(caller))
            return outcome

    async def _pin_and_finish(self, caller: Caller, request: CommitRequest, uid: bytes) -> Outcome | None:
        try:
            tree = await self.closing.unless(self.pins.acquire(caller.entity, uid, request.tree_digest))
            return await self._finish(caller, request, uid, tree)
        except Draining:
            # Left to the next start: ingest did not answer in time.
            raise
        except Exception:
            if await self._abort(uid):
                raise
            # Another process ended this commit while it was asked for here; what it came to, is asked anew.
            return None

    async def _finish(self, caller: Caller, request: CommitRequest, uid: bytes, tree: PinnedTree) -> Outcome | None:
        """Make the version. Returns None when another process ended the intent, and that made no version."""
        async with self.store.change(caller) as change:
            if not await end_commit(change, uid):
                row = await self.store.versions.once(change.connection, change.entity_id, uid)
                return None if row is None else Outcome(row, created=True)
            collection, same = await self._find(change, request)
            outcome = await self._without_pin(change, request, collection, same)
            if outcome is None:
                return await self._add(change, request, collection, uid, tree)
            await release_pin(change, uid)
        self.on_release()
        return outcome

    async def _find(self, change: Change, request: CommitRequest) -> tuple[CollectionHead | None, int | None]:
        return await self.store.collections.find_with_tree(
            change, request.project, request.collection, request.tree_digest
        )

    async def _without_pin(
        self, change: Change, request: CommitRequest, collection: CollectionHead | None, same: int | None
    ) -> Outcome | None:
        """Return what the request came to when it came before, or what it comes to where the tree has a version."""
        asked = request.fingerprint()
        memory = await change.recall(request.request_id, asked)
        if memory is not None:
            return await from_memory(change, self.store.versions, memory)
        request.check_collection(collection)
        if collection is None or same is None:
            return None
        row = await self.store.versions.by_id(change.connection, same)
        end = await end_of_new(change, request.project, request.collection, request.ttl_seconds)
        tags = changed_tags(self.settings, row.tags, request.tags)
        # Somebody wants this tree from now on: it never goes sooner for that.
        await update_version(change, row, tags=tags, expiry=Expiry(later(end, row.expires_at_ms)))
        await change_aliases(change, collection.key, row.point, request.aliases)
        if request.run:
            run = await find_run(change, request.run)
            await add_output(change, collection.key, row.point, run, is_new=False)
        outcome = Outcome(await self.store.versions.by_id(change.connection, same))
        await change.remember(request.request_id, asked, to_memory(outcome))
        return outcome

    async def _add(
        self, change: Change, request: CommitRequest, collection: CollectionHead | None, uid: bytes, tree: PinnedTree
    ) -> Outcome:
        run = await find_run(change, request.run) if request.run else None
        if collection is None:
            kind = kind_of(request.project)
            collection = await create_collection(change, request.project, request.collection, kind, request.type)
        new = NewVersion(
            uid=uid,
            tree_digest=request.tree_digest,
            file_count=tree.file_count,
            reference_count=tree.reference_count,
            size_bytes=tree.size_bytes,
            description=request.description,
            metadata=parse_metadata(request.metadata, "metadata_json", self.settings.max_metadata_bytes),
            tags=request.tags,
            run=run,
            expires_at_ms=await end_of_new(change, request.project, request.collection, request.ttl_seconds),
        )
        point = await add_version(change, collection.key, new)
        if run is not None:
            await add_output(change, collection.key, point, run, is_new=True)
        await change_aliases(change, collection.key, point, request.aliases, is_newest=True)
        outcome = Outcome(await self.store.versions.by_id(change.connection, point.id), created=True)
        await change.remember(request.request_id, request.fingerprint(), to_memory(outcome))
        return outcome

    async def _abort(self, uid: bytes) -> bool:
        is_mine = await self.store.pending.abort_commit(uid)
        if is_mine:
            self.on_release()
        return is_mine
