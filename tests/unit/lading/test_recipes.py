"""Recipes in messages: what was laid out is what can be read back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lading._limits import Limits
from lading._local_files import LocalFile
from lading._upload.content import UploadingFile
from lading._upload.recipes import CHUNKS_PER_PART, recipe_messages


def _file(number: int, chunk_count: int) -> UploadingFile:
    source = LocalFile(f"f{number}", f"/f{number}", max(1, chunk_count) * 100, 0, False, 0, 0, 0)
    file = UploadingFile(source, digest=number.to_bytes(32, "big"), is_read=True)
    for index in range(chunk_count):
        file.add_chunk((number + index).to_bytes(32, "big"), 100)
    return file


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7))
def test_every_recipe_comes_whole_and_in_order(chunk_counts: Sequence[int], blobs_per_message: int) -> None:
    files = [_file(number, count) for number, count in enumerate(chunk_counts)]
    messages = list(recipe_messages(files, Limits(max_blobs_per_message=blobs_per_message)))
    assert all(0 < len(message.parts) <= blobs_per_message for message in messages)
    parts = [part for message in messages for part in message.parts]
    assert [part.blob_digest for part in parts] == [file.digest for file in files]
    assert [part.chunk_digests for part in parts] == [bytes(file.chunk_digests) for file in files]
    assert [list(part.chunk_sizes) for part in parts] == [
        list(file.chunk_sizes) if c else [] for file, c in zip(files, chunk_counts, strict=True)
    ]
    assert not any(part.more for part in parts)


def test_a_very_long_recipe_is_continued_within_the_message_limit() -> None:
    file = _file(7, 2 * CHUNKS_PER_PART + 1)
    messages = list(recipe_messages([_file(1, 1), file, _file(2, 1)], Limits()))
    parts = [part for message in messages for part in message.parts if part.blob_digest == file.digest]
    assert [part.more for part in parts] == [True, True, False]
    assert b"".join([part.chunk_digests for part in parts]) == bytes(file.chunk_digests)
    assert max(message.ByteSize() for message in messages) < 4 << 20
