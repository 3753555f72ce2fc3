"""A tree's listing, from the cache or from the server, as a plan. Verified either way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from lading._cache.transfer import Transfer
from lading._download.plan import Plan, Wanted
from lading._errors import InvalidArgument
from lading._limits import Limits
from lading._listing import tree_pages
from lading._model import ListedEntry
from lading._retry import RetryPolicy
from lading._threads import Threads
from lading._transport import Transport
from lading_format.digest import parse_digest
from lading_format.errors import FormatError
from lading_proto.ingest.v1 import trees_pb2

Planned = tuple[Plan, list[Wanted]]


async def planned(
    transport: Transport,
    entity: str,
    limits: Callable[[], Awaitable[Limits]],
    policy: RetryPolicy,
    tree_digest: str,
    prefix: str,
    cache: Transfer | None,
    threads: Threads,
) -> Planned:
    """Return what a tree asks for. Asks no server, not even for its limits, where the cache has the listing.

    Raises:
        IntegrityError, UnsafePath: The server's listing is not the tree's, or cannot be written safely.
        NotFound: The entity has no such tree.
    """
    digest = raw_digest(tree_digest)
    if cache is not None:
        known = await threads.run(cache.read_tree, digest, lambda pages: plan_from(pages, tree_digest, prefix))
        if known is not None:
            return known
    page_size = (await limits()).max_page_size
    plan = Plan(tree_digest, prefix)
    request = trees_pb2.ListTreeRequest(entity=entity, tree_digest=tree_digest, prefix=prefix, page_size=page_size)
    # A part of a listing cannot be compared with the digest, so it is not kept.
    kept = cache.new_tree(digest) if cache is not None and not prefix else None
    try:
        async for page in tree_pages(transport, policy, request):
            await threads.run(plan.add, page)
            if kept is not None:
                await threads.run(kept.add, page)
        wanted = await threads.run(plan.finish)
        if kept is not None:
            await threads.run(kept.finish)
    finally:
        if kept is not None:
            kept.close()
    return plan, wanted


def plan_from(pages: Iterator[list[ListedEntry]], tree_digest: str, prefix: str = "") -> Planned:
    """Return the plan of a whole listing, or of the part with a prefix. Raises as Plan does."""
    whole = Plan(tree_digest, "")
    part = Plan(tree_digest, prefix) if prefix else whole
    for page in pages:
        whole.add(page)
        if prefix:
            part.add([entry for entry in page if entry.path.startswith(prefix)])
    wanted = whole.finish()
    return part, part.finish() if prefix else wanted


def raw_digest(tree_digest: str) -> bytes:
    """Return a tree's digest as bytes. Raises InvalidArgument."""
    try:
        return parse_digest(tree_digest)
    except FormatError as error:
        raise InvalidArgument(str(error)) from error
