"""What is fuzzed: each target takes any bytes, and raises only when the code under it is wrong.

Everything here is read from somebody else: callers, disks. What it may do with bytes that make no sense is to refuse
them with the error that its documentation names, and what it takes has to hold what it promises.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os.path
from collections.abc import Callable, Mapping, Sequence

from lading._local_files import LocalFile
from lading._upload.blocks import Block, Blocks
from lading._upload.content import Chunk, UploadingFile
from lading._upload.wire import encode_batch
from lading_format import names
from lading_format.digest import format_digest, parse_digest, split_digests, xxh3_64
from lading_format.errors import FormatError, InvalidDigest, InvalidName, InvalidPath
from lading_format.paths import MAX_PATH_BYTES, check_path
from lading_format.references import parse_reference
from lading_proto.ingest.v1 import chunks_pb2
from lading_server.common.errors import CorruptRecord, InvalidPageToken
from lading_server.common.keys import parse_key
from lading_server.common.page_tokens import check_position, make_token, open_token
from lading_server.common.registry_errors import InvalidQuery, KeyInvalid
from lading_server.ingest.domain import tree_reader
from lading_server.ingest.domain.tree_pages import decode_page, decode_tree_record, page_blobs
from lading_server.ingest.packs.format import (
    decode_index,
    decode_pack_header,
    decode_record_header,
    decode_trailer,
    header_seed,
)
from lading_server.ingest.packs.reader import (
    read_index,
    read_pack_header,
    read_trailer,
    scan_records,
    verify_pack,
)
from lading_server.ingest.packs.storage import ShortRead
from lading_server.registry.domain.queries import format_query, parse_query
from tests.fuzz.packs import PACK, RUN_BYTES, BytesAsPack, mutated

Target = Callable[[bytes], None]

_SCOPE = ("acme", "ListThings")
_FILE = UploadingFile(LocalFile("f", "/f", 0, 0, False, 0, 0, 0))
_BLOCK = Block(Blocks(0, 0), memoryview(b""))
_CHECKS: Sequence[Callable[[str], object]] = (
    names.check_entity_name,
    names.check_project,
    names.check_type,
    names.check_alias,
    names.check_settable_alias,
    names.check_tag,
    names.check_run_id,
    names.check_request_id,
    names.check_member,
    names.check_key_id,
    names.check_version_uid,
    lambda text: names.check_collection("project", text),
    lambda text: names.check_collection("model-registry", text),
)


def text_of(data: bytes) -> str:
    """Any text that Python can hold, lone surrogates too."""
    return data.decode(errors="surrogateescape")


def paths(data: bytes) -> None:
    """A path that is taken stays below any root, on any system, and is no longer than it may be."""
    path = text_of(data)
    try:
        check_path(path)
    except InvalidPath as error:
        error.message.encode()
        return
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert os.path.normpath(os.path.join("/root", path)) == f"/root/{path}"
    assert not {"", ".", ".."} & set(path.split("/"))
    assert not set("\\\0") & set(path)


def references(data: bytes) -> None:
    """A reference that is taken is read again from how it is written."""
    try:
        reference = parse_reference(text_of(data))
    except (InvalidName, InvalidDigest) as error:
        error.message.encode(errors="backslashreplace")
        return
    assert parse_reference(str(reference)) == reference
    assert [reference.alias, reference.number, reference.digest].count(None) == 2


def every_name(data: bytes) -> None:
    """A name that is taken fits a line, a URL's path and a database."""
    text = text_of(data)
    for check in _CHECKS:
        try:
            check(text)
        except FormatError:
            continue
        text.encode()
        assert text.isprintable()
        assert 0 < len(text) <= 256


def keys(data: bytes) -> None:
    """A key is as it was shown, and one that is none is not repeated."""
    text = text_of(data)
    try:
        key = parse_key(text)
    except KeyInvalid as error:
        assert len(text) < 24 or text not in error.message
        return
    assert key.text == text
    assert key.secret not in repr(key)


def digests(data: bytes) -> None:
    """A digest is as it is printed."""
    with contextlib.suppress(InvalidDigest):
        assert format_digest(parse_digest(text_of(data))) == text_of(data)
    try:
        assert b"".join(split_digests(data)) == data
    except InvalidDigest:
        assert len(data) % 32


def queries(data: bytes) -> None:
    """A query that is taken is read again from how it is written."""
    try:
        conditions = parse_query(text_of(data))
    except InvalidQuery as error:
        assert 0 <= int(error.metadata["position"]) <= len(text_of(data))
        return
    assert parse_query(format_query(conditions)) == conditions


def registry_page_tokens(data: bytes) -> None:
    """A token is one that was given, or refused; one that was made up with the right checksum is of right kinds."""
    with contextlib.suppress(InvalidPageToken):
        open_token(text_of(data), _SCOPE)
    for forged in (_forged(_SCOPE, data), _forged(("rival", "ListThings"), data)):
        try:
            position = open_token(forged, _SCOPE)
            if position is not None:
                check_position(position, (str, int))
                assert [type(value) for value in position] == [str, int]
        except InvalidPageToken:
            continue
    given = make_token(_SCOPE, [text_of(data).encode(errors="replace").decode(), len(data)])
    assert open_token(given, _SCOPE) == [text_of(data).encode(errors="replace").decode(), len(data)]
    with contextlib.suppress(InvalidPageToken):
        open_token(given, ("rival", "ListThings"))
        raise AssertionError("a token of one entity was taken by another")


def ingest_page_tokens(data: bytes) -> None:
    """The same, of trees: any bytes are a place in a tree."""
    scope = b"list\0" + bytes(32)
    with contextlib.suppress(InvalidPageToken):
        tree_reader._open_token(text_of(data), scope)
    if data:
        token = tree_reader._make_token(data, scope)
        assert tree_reader._open_token(token, scope) == data
        with contextlib.suppress(InvalidPageToken):
            tree_reader._open_token(token, scope + b"x")
            raise AssertionError("a token of one listing was taken by another")


def pack_parts(data: bytes) -> None:
    """Headers, trailers, indexes and pages of any bytes are read or corrupt."""
    for decode in (decode_pack_header, decode_trailer, decode_page, page_blobs, decode_tree_record):
        with contextlib.suppress(CorruptRecord):
            decode(data)
    with contextlib.suppress(CorruptRecord):
        decode_record_header(data, header_seed(PACK))
    with contextlib.suppress(CorruptRecord):
        list(decode_index(data))


def packs(data: bytes) -> None:
    """A pack of any bytes is read or corrupt, and no more of it is in memory than it has, or a run."""
    _read_all(BytesAsPack(data))


def mutated_packs(data: bytes) -> None:
    """The same of a pack that somebody changed, with right checksums where they would hide the rest."""
    _read_all(BytesAsPack(mutated(data)))


def tree_pages(data: bytes) -> None:
    """The pages and records of trees, behind the byte that says which version they are."""
    for decode in (decode_page, page_blobs, decode_tree_record):
        with contextlib.suppress(CorruptRecord):
            decode(b"\x01" + data)


def wire(data: bytes) -> None:
    """What is encoded by hand is what protobuf would have made."""
    chunks = [
        Chunk(
            _FILE,
            0,
            data[at : at + 32],
            int.from_bytes(data[at : at + 8], "little"),
            data[at + 32 : at + 200] or b"x",
            _BLOCK,
        )
        for at in range(0, len(data) - 32, 97)
    ]
    message = chunks_pb2.PutChunksRequest.FromString(encode_batch(chunks))
    read = [(one.digest, one.xxh3, one.size_bytes, one.data) for one in message.batch.chunks]
    assert read == [(one.digest, one.xxh3, len(one.data), bytes(one.data)) for one in chunks]


def _forged(scope: Sequence[object], data: bytes) -> str:
    """A token with a right checksum around anything."""
    text = json.dumps(scope, ensure_ascii=False).encode()
    checksum = xxh3_64(b"%d:%b%b" % (len(text), text, data)).to_bytes(8, "little")
    return base64.urlsafe_b64encode(checksum + data).decode().rstrip("=")


def _read_all(pack: BytesAsPack) -> None:
    storage = pack.storage()
    size_bytes = len(pack.data)
    for read in (read_pack_header, read_trailer, read_index, verify_pack):
        with contextlib.suppress(CorruptRecord, ShortRead):
            read(storage, PACK)
    with contextlib.suppress(CorruptRecord, ShortRead):
        for record in scan_records(storage, PACK, size_bytes):
            assert len(record.payload) == record.header.stored_bytes
    assert pack.most_bytes <= max(size_bytes, RUN_BYTES)


TARGETS: Mapping[str, Target] = {
    target.__name__: target
    for target in (
        paths,
        references,
        every_name,
        keys,
        digests,
        queries,
        registry_page_tokens,
        ingest_page_tokens,
        pack_parts,
        packs,
        mutated_packs,
        tree_pages,
        wire,
    )
}
"""By name, as `python -m tests.fuzz` takes it."""
