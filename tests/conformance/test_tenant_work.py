"""What another entity has and what nobody has cost the same work: the same statements, with as many values.

Time would be the wrong thing to look at: what takes the same steps takes the same time, and nothing else does reliably.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lading_format.digest import blake3_digest
from lading_server.common.errors import BlobNotFound, SessionExpired, TreeNotFound
from lading_server.ingest.domain.ingest import Ingest
from tests.support.content import opened_ingest, put_tree
from tests.support.index import DATABASES, new_digests
from tests.support.statements import noted_statements

OURS, THEIRS = "rival", "acme"


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


@contextmanager
def statements(ingest: Ingest) -> Iterator[list[tuple[str, int]]]:
    """Note every statement, and the bytes of its values."""
    seen: list[tuple[str, int]] = []
    with noted_statements(ingest.index.database) as noted:
        yield seen
        # Names of made-up parameters count up.
        seen += [(re.sub(r"\s+", " ", one.text), _size(one.values)) for one in noted]


def _size(parameters: Any) -> int:
    if isinstance(parameters, bytes | str):
        return len(parameters)
    if isinstance(parameters, list | tuple):
        return sum(map(_size, parameters))
    return 1


async def test_chunks_that_another_entity_has_cost_what_chunks_cost_that_nobody_has(ingest: Ingest) -> None:
    chunks = [os.urandom(100) for _ in range(50)]
    await put_tree(ingest, {f"{number}.bin": [chunk] for number, chunk in enumerate(chunks)}, THEIRS)
    # Known to the index, so that it is not the first question of this entity that is looked at.
    await put_tree(ingest, {"own.bin": [b"own"]}, OURS)
    session = await ingest.open_session(OURS)
    work = []
    for digests in ([blake3_digest(chunk) for chunk in chunks], new_digests(50)):
        await ingest.renew_session(OURS, session)
        with statements(ingest) as seen:
            assert await ingest.find_missing(OURS, session, digests) == list(range(50))
        work.append(seen)
    assert work[0] == work[1]
    assert work[0]
    # It would be seen if it were not so: what the entity has itself is held, which takes a write.
    with statements(ingest) as seen:
        assert await ingest.find_missing(OURS, session, [blake3_digest(b"own"), *new_digests(49)]) == list(range(1, 50))
    assert seen != work[0]


async def test_blobs_trees_and_sessions_of_another_entity_cost_what_none_cost(ingest: Ingest) -> None:
    tree = await put_tree(ingest, {"model.bin": [b"a" * 100, b"b" * 100]}, THEIRS)
    await put_tree(ingest, {"own.bin": [b"own"]}, OURS)
    blob, session = blake3_digest(b"a" * 100 + b"b" * 100), await ingest.open_session(THEIRS)
    work = []
    for some_blob, some_tree, some_session in (
        (blob, tree, session),
        (*new_digests(2), os.urandom(16)),
    ):
        with statements(ingest) as seen:
            assert await ingest.index.blobs.stat(OURS, [some_blob]) == {}
            with pytest.raises(BlobNotFound):
                await ingest.content.size(OURS, some_blob)
            with pytest.raises(TreeNotFound):
                await ingest.trees.totals(OURS, some_tree)
            with pytest.raises(SessionExpired):
                await ingest.renew_session(OURS, some_session)
        work.append(seen)
    assert work[0] == work[1]
    assert len(work[0]) >= 4
