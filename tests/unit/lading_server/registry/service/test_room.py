"""What is left of versions that do not fit into an answer."""

from __future__ import annotations

from lading_server.registry.domain.outcomes import Outcome
from lading_server.registry.domain.undeleting import Undeleted
from lading_server.registry.service.convert import version_to_proto
from lading_server.registry.service.convert_deletions import undeleted_to_proto
from lading_server.registry.service.convert_versions import outcomes_to_proto
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import CollectionKind, VersionState


def row(number: int) -> VersionRow:
    return VersionRow(
        id=number,
        uid=number.to_bytes(16, "big"),
        entity_id=1,
        collection_id=1,
        project="vision",
        collection="digits",
        kind=CollectionKind.SEQUENCE,
        type="dataset",
        number=number,
        tree_digest=bytes(32),
        file_count=1,
        reference_count=0,
        size_bytes=1,
        description="c" * 300,
        metadata="{}" + " " * 300,
        tags=tuple(f"tag-{at:03}" for at in range(50)),
        aliases=tuple(f"alias-{at:03}" for at in range(50)),
        created_at_ms=1,
        created_by="ann",
        run="",
        source_id=None,
        source_uid=None,
        source="",
        expires_at_ms=None,
        state=VersionState.LIVE,
        deleted_at_ms=None,
        deletion=None,
    )


ROWS = [row(number) for number in range(10)]
WHOLE = [version_to_proto(one) for one in ROWS]
BRIEF = [version_to_proto(one._replace(description="", metadata="")) for one in ROWS]
NAMED = [version_to_proto(one._replace(description="", metadata="", tags=(), aliases=())) for one in ROWS]


def test_changed_references_are_all_told_and_lose_first_their_texts_and_then_their_tags() -> None:
    outcomes = [Outcome(one, created=True) for one in ROWS]
    seen = []
    whole_bytes = outcomes_to_proto(outcomes, 1 << 22).ByteSize()
    least_bytes = outcomes_to_proto(outcomes, 0).ByteSize()
    for max_bytes in range(whole_bytes + 200, least_bytes - 1, -7):
        answer = outcomes_to_proto(outcomes, max_bytes)
        assert answer.ByteSize() <= max_bytes
        assert all(result.created for result in answer.results)
        told = [result.version for result in answer.results]
        if told not in seen:
            seen.append(told)
    assert seen == [WHOLE, BRIEF, NAMED]


def test_links_that_came_back_are_all_told_and_the_version_as_it_is() -> None:
    undeleted = Undeleted(ROWS[0], ROWS[1:])
    seen = []
    whole_bytes = undeleted_to_proto(undeleted, 1 << 22).ByteSize()
    least_bytes = undeleted_to_proto(undeleted, 0).ByteSize()
    for max_bytes in range(whole_bytes + 200, least_bytes - 1, -7):
        answer = undeleted_to_proto(undeleted, max_bytes)
        assert answer.ByteSize() <= max_bytes
        assert answer.version == WHOLE[0]
        if list(answer.links) not in seen:
            seen.append(list(answer.links))
    assert seen == [WHOLE[1:], BRIEF[1:], NAMED[1:]]
