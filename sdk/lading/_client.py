"""The client: names and content together. Everything that needs no run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from lading._cache.local import LocalCache
from lading._check import CheckEvent, check_store, version_reference
from lading._config import wishes_from
from lading._digest_cache import digest_cache
from lading._errors import InvalidArgument, LadingError, MissingContent
from lading._maintenance.calls import Maintenance
from lading._model import Reference, StrPath, Usage
from lading._progress import ProgressCallback
from lading._registry.access import RegistryAccess
from lading._registry.connection import Connection
from lading._registry.models import NO_BELIEFS, Beliefs, Committed, SupportsEntries
from lading._registry.retention import RegistryRetention
from lading._registry.writes import RegistryWrites
from lading._retry import RetryPolicy
from lading._trust import trust_from
from lading_proto.ingest.v1 import check_pb2

# Content of an upload can be collected before its commit only when the upload's lease lapsed in between.
_UPLOADS_AT_MOST = 3


class Client(RegistryWrites, RegistryAccess, RegistryRetention, Maintenance):
    """Resolves, lists, searches, changes and fetches versions of a Lading server.

    An async context manager. Opens nothing before the first call. For one event loop at a time; any number of its tasks
    may use it. Forks before the first call, or after `close`, do no harm; in the child of a process that was connected
    every call raises FailedPrecondition.

    Where a reference leaves out its entity or project, the client's are meant; where it names them, they are used.
    Every method repeats calls that failed for a passing reason, and raises Unavailable (or OutcomeUnknown, or Busy)
    when there was no progress for `retry` seconds. Every method raises Unauthenticated where there is no usable key,
    and PermissionDenied where the key is for another entity.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        entity: str | None = None,
        project: str | None = None,
        ca_file: StrPath | None = None,
        client_cert: StrPath | None = None,
        client_key: StrPath | None = None,
        retry: RetryPolicy | float = 120.0,
    ) -> None:
        """Make a client.

        Each setting is the argument, else the variable, else what `lading login` kept for the server, else, for a
        server on this machine, what that left for its user, else the default. `LADING_CACHE_DIR` says where files that
        were downloaded are kept, up to `LADING_CACHE_BYTES`, and the digests of files that were stored; empty or `off`,
        every file is fetched and read every time.

        Args:
            url: `host:port`, `grpc://host:port`, or `grpcs://host:port` for TLS; `LADING_URL`; 127.0.0.1:7420.
            api_key: `LADING_API_KEY`.
            entity: The tenant; `LADING_ENTITY`; the one that the key is for.
            project: `LADING_PROJECT`; `default`.
            ca_file: Whose certificates to believe, PEM; `LADING_CA_FILE`; what `lading login` keeps;
                whose the system believes.
            client_cert: A certificate to show with its chain, PEM, where the server wants one; `LADING_CLIENT_CERT`.
            client_key: Its key; `LADING_CLIENT_KEY`.
            retry: For how many seconds without progress to try again; or a whole policy.

        Raises:
            InvalidArgument: The address, the entity, the project or `LADING_CACHE_BYTES` is malformed.
        """
        policy = retry if isinstance(retry, RetryPolicy) else RetryPolicy(retry_seconds=retry)
        wishes = wishes_from(
            url, api_key, entity, project, os.environ, trust_from(ca_file, client_cert, client_key, os.environ)
        )
        super().__init__(Connection(wishes, policy, digest_cache(os.environ), LocalCache.from_environment()))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.close()

    async def usage(self) -> Usage:
        """Return how much the client's entity stores, and how much it may.

        Source: IngestService.GetUsage in protos/lading_proto/ingest/v1/ingest.proto.
        """
        content = await self.connection.content(await self.connection.entity())
        return await content.usage()

    async def check(
        self, level: int = 1, *, restart: bool = False, entity: str | None = None, max_bytes: int = 0
    ) -> AsyncGenerator[CheckEvent, None]:
        """Look for damage in the store; yield progress, findings, the versions that are hurt, and a CheckSummary.

        For the operator. What is found to be lost is asked for by the next upload of the same files, which heals it;
        everything else goes on being read. Continues a check of the same level that did not come to its end.

        Args:
            level: 1 looks at the database alone, 2 also at what frames each pack, 3 at every record's checksum, 4 at
                every record's digest and at every file's and tree's.
            restart: Begin at the beginning.
            entity: Only what this tenant stores.
            max_bytes: Stop when so much was read, at the end of a pack; 0 for no limit.

        Raises:
            InvalidArgument: There is no such level, or the entity is malformed.
            Busy: Another call runs this check.
            PermissionDenied: The key is not the operator's.

        Source: CheckService.CheckStore in protos/lading_proto/ingest/v1/check.proto.
        """
        if level not in range(1, 5):
            raise InvalidArgument(f"There is no level {level} of a check. Give 1, 2, 3 or 4.")
        if max_bytes < 0:
            raise InvalidArgument(f"max_bytes is {max_bytes}. Give 0 for no limit, or a positive number.")
        request = check_pb2.CheckStoreRequest(
            level=check_pb2.CheckLevel.ValueType(level),
            restart=restart,
            only_entity=entity or "",
            stop_after_bytes=max_bytes,
        )
        name_version = partial(version_reference, self.connection)
        transport = await self.connection.ingest()
        async with aclosing(check_store(transport, self.connection.policy, request, name_version)) as events:
            async for event in events:
                yield event

    async def put(
        self,
        source: StrPath | Mapping[str, StrPath | Reference] | SupportsEntries,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        aliases: Sequence[str] = (),
        remove_aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        expected: Beliefs = NO_BELIEFS,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_progress: ProgressCallback | None = None,
        ttl: timedelta | None = None,
    ) -> Committed:
        """Store files and give them a number in a collection. Sends only what the entity does not have.

        Files that did not change since they were last stored are not read again. To resume an upload that was
        interrupted is to call this again.

        Args:
            source: A directory; a single file, which keeps its name; a mapping of tree paths to local files and
                References; or something that lists such a mapping.
            name: The collection, `[entity/][project/]name`. It and its project are made if they are not there.
            type: As in `commit`, with `aliases` to `expected`.
            include: Of a directory, only files that match one of these patterns, or are below a directory that does.
                `*` and `?` stop at `/`, `**` does not; a pattern without `/` matches a name at any depth.
            exclude: Of a directory, nothing that matches one of these patterns.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the upload.
            ttl: As in `commit`.

        Raises:
            InvalidArgument: A name cannot be a path of a tree, or the source is not what it should be.
            UnsafePath: The directory holds a link, a pipe, a socket or a device that `exclude` does not leave out.
            FileChanged: A file changed while it was read.
            ResourceExhausted: The store has too little free space.
            OSError: A file cannot be read.
            Conflict, FailedPrecondition, NotFound: As `commit` does.

        Source: IngestService.PutTree and RegistryService.CommitVersion in protos/lading_proto.
        """
        request = await self._commit_request(
            name, type, aliases, remove_aliases, tags, description, metadata, run_id, expected, ttl
        )
        content = await self.connection.content(request.entity)
        files = await asyncio.to_thread(_files, source)
        for uploads in range(_UPLOADS_AT_MOST):
            uploaded = await content.upload_tree(
                files, include=include, exclude=exclude, on_progress=on_progress, recheck=uploads > 0
            )
            try:
                return await self._commit(request, uploaded.tree.digest)
            except LadingError as error:
                missing = isinstance(error, MissingContent) or error.reason == "TREE_NOT_FOUND"
                if not missing or uploads + 1 == _UPLOADS_AT_MOST:
                    raise
        raise AssertionError("the last round returns or raises")


def _files(
    source: StrPath | Mapping[str, StrPath | Reference] | SupportsEntries,
) -> StrPath | Mapping[str, StrPath | Reference]:
    """Return what Content.upload_tree takes."""
    if isinstance(source, Mapping):
        return source
    if isinstance(source, SupportsEntries):
        return source.entries()
    if not isinstance(source, str | os.PathLike):
        raise InvalidArgument(f"A {type(source).__name__} cannot be put. Give a path, a mapping or an Artifact.")
    return {Path(source).name: source} if os.path.isfile(source) else source
