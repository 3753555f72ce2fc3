"""Where the tensors of a checkpoint begin."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lading_format.borders import format_borders

SEED = 20261124
KIB = 1 << 10
MIB = 1 << 20


def tensors_of(sizes: Mapping[str, int]) -> dict[str, bytes]:
    return {name: random.Random(f"{SEED} {name}").randbytes(size) for name, size in sizes.items()}


def safetensors(tensors: Mapping[str, bytes], metadata: str = "") -> bytes:
    """A file as the safetensors library writes it: length, JSON padded to eight bytes, data without gaps."""
    header: dict[str, object] = {"__metadata__": {"note": metadata}} if metadata else {}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(tensors.values())


def archive(tensors: Mapping[str, bytes], *, first: bytes = b"", is_aligned: bool = True, zip64: bool = False) -> bytes:
    """A file as torch.save writes it: stored entries, each header padded so that its data is aligned to 64 bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        for name, data in {"archive/data.pkl": first, **tensors}.items():
            info = zipfile.ZipInfo(name)
            if is_aligned:
                padding = -(file.tell() + 30 + len(name.encode()) + 4) % 64
                info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
            with writer.open(info, "w", force_zip64=zip64) as entry:
                entry.write(data)
    return file.getvalue()


def borders_of(data: bytes, name: str = "model.safetensors") -> list[int] | None:
    borders = format_borders(lambda offset, length: data[offset : offset + length], len(data), name)
    if borders is not None:
        assert all(one < other for one, other in pairwise([0, *borders, len(data)]))
    return borders


def pieces_of(data: bytes, name: str = "model.safetensors") -> list[bytes]:
    borders = borders_of(data, name)
    assert borders is not None
    return [data[begin:end] for begin, end in pairwise([0, *borders, len(data)])]


LAYERS = {f"model.layers.{number}.{part}": size for number in range(6) for part, size in
          {"attn.weight": 600 * KIB, "mlp.weight": MIB + 5, "norm.weight": 8 * KIB}.items()}  # fmt: skip


def test_every_large_tensor_is_a_piece_of_its_own() -> None:
    tensors = tensors_of(LAYERS)
    pieces = pieces_of(safetensors(tensors))
    assert {data for data in tensors.values() if len(data) > 128 * KIB} <= set(pieces)


def test_the_header_is_a_piece_of_its_own() -> None:
    tensors = tensors_of({"a": 10, "b": MIB})
    data = safetensors(tensors)
    assert borders_of(data) is not None
    assert pieces_of(data)[0] == data[: len(data) - MIB - 10]


def test_a_grown_header_leaves_every_other_piece_as_it_was() -> None:
    tensors = tensors_of(LAYERS)
    before = pieces_of(safetensors(tensors))
    after = pieces_of(safetensors(tensors, metadata="step 2 " * 1000))
    assert before[1:] == after[1:]


def test_a_layer_that_comes_first_leaves_all_later_pieces_as_they_were() -> None:
    tensors = tensors_of(LAYERS)
    new = tensors_of({"embedding": 3 * MIB + 7, "embedding.norm": 12 * KIB})
    before = pieces_of(safetensors(tensors))
    after = pieces_of(safetensors({**new, **tensors}))
    assert set(before[1:]) <= set(after)


def test_ten_thousand_tiny_tensors_make_few_pieces() -> None:
    pieces = pieces_of(safetensors(tensors_of({f"t{number}": 2 * KIB for number in range(10_000)})))
    assert 40 <= len(pieces) <= 140


def test_a_tiny_tensor_among_thousands_that_grows_changes_two_pieces_at_most() -> None:
    tensors = tensors_of({f"t{number:05d}": 2 * KIB for number in range(5_000)})
    before = pieces_of(safetensors(tensors))
    tensors["t02500"] += b"more"
    after = pieces_of(safetensors(tensors))
    # One of them is the header.
    assert len(set(after) - set(before)) == 2


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "arrays.npz", "x"])
def test_an_archive_is_known_by_its_content(name: str) -> None:
    tensors = tensors_of({f"archive/data/{number}": size for number, size in enumerate([MIB, 700 * KIB, 5, 2 * MIB])})
    pieces = pieces_of(archive(tensors), name)
    for data in tensors.values():
        # The data, and what zip says of it behind.
        assert len(data) < 128 * KIB or any(piece.startswith(data) and len(piece) < len(data) + 32 for piece in pieces)


@pytest.mark.parametrize("zip64", [False, True])
def test_an_entry_that_moves_to_another_alignment_stays_the_same_pieces(*, zip64: bool) -> None:
    tensors = tensors_of({f"archive/data/{number}": 400 * KIB + number for number in range(8)})
    before = pieces_of(archive(tensors, first=b"pickle", zip64=zip64), "model.pt")
    after = pieces_of(archive(tensors, first=b"a longer pickle" * 77, zip64=zip64), "model.pt")
    assert len([piece for piece in before if len(piece) > 128 * KIB]) == 8
    assert {piece for piece in before if len(piece) > 128 * KIB} <= set(after)


def test_thousands_of_small_entries_make_few_pieces_that_stay() -> None:
    tensors = tensors_of({f"images/{number:05d}.png": 3 * KIB for number in range(4_000)})
    before = pieces_of(archive(tensors, is_aligned=False), "images.zip")
    after = pieces_of(archive(tensors, first=b"an entry that was not there", is_aligned=False), "images.zip")
    assert 25 <= len(before) <= 110
    # The first piece has the new entry, the last is the directory.
    assert before[1:-1] == after[1:-1]


def test_compressed_archives_have_borders_too() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, data in tensors_of({"a.npy": 300 * KIB, "b.npy": 300 * KIB}).items():
            writer.writestr(name, data)
    assert len(pieces_of(file.getvalue(), "arrays.npz")) == 5


def zip64_directory(data: bytes) -> bytes:
    """The same archive with its directory described in zip64 records only, as one of more than 4 GiB has it."""
    at = data.rindex(b"PK\x05\x06")
    *_, count, directory_bytes, directory_begin, _ = struct.unpack_from("<4s4H2LH", data, at)
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, directory_bytes, directory_begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    return data[:at] + end + locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)


def test_an_archive_whose_directory_is_zip64_is_read() -> None:
    data = archive(tensors_of({"a": MIB, "b": MIB}))
    large = zip64_directory(data)
    assert zipfile.ZipFile(io.BytesIO(large)).testzip() is None
    assert borders_of(large, "x.zip") == borders_of(data, "x.zip")


def test_offsets_that_are_in_a_zip64_field_are_read() -> None:
    data = archive(tensors_of({"a": MIB, "b": MIB}), is_aligned=False)
    at = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    fields = list(struct.unpack_from("<4s6H3L5H2L", data, at))
    field = struct.pack("<HH3Q", 1, 24, fields[9], fields[8], fields[16])
    fields[8] = fields[9] = fields[16] = 0xFFFFFFFF
    fields[11] = len(field)
    entry = struct.pack("<4s6H3L5H2L", *fields) + data[at + 46 : end] + field
    tail = list(struct.unpack("<4s4H2LH", data[end:]))
    tail[5] += len(field)
    patched = data[:at] + entry + struct.pack("<4s4H2LH", *tail)
    assert zipfile.ZipFile(io.BytesIO(patched)).testzip() is None
    assert borders_of(patched, "x.zip") == borders_of(data, "x.zip")


PADDING = bytes(200 * KIB)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
OFFSETS = st.fixed_dictionaries({"data_offsets": st.lists(st.integers(-5, 300 * KIB) | JSON, max_size=3)})


@given(JSON | st.dictionaries(st.text(max_size=3), OFFSETS | JSON, max_size=4))
@example([])
@example({"a": {"data_offsets": [0, 1 << 70]}})
@example({"a": {"data_offsets": [0, 90000]}, "b": {"data_offsets": [10, 20]}})
@example({"\ud800": {"data_offsets": [0, 10]}})
def test_no_header_whatever_it_says_makes_an_error(header: object) -> None:
    encoded = json.dumps(header).encode()
    borders_of(struct.pack("<Q", len(encoded)) + encoded + PADDING)


@pytest.mark.parametrize(
    "encoded",
    [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe", b"", b'{"a":{"data_offsets":[9e999,1]}}', b"NaN"],
)
def test_headers_that_break_parsers_give_no_borders(encoded: bytes) -> None:
    assert borders_of(struct.pack("<Q", len(encoded)) + encoded + PADDING) is None


@pytest.mark.parametrize("header_bytes", [1 << 63, (1 << 64) - 1, 17 << 20, 300 * KIB])
def test_a_header_that_claims_too_much_is_not_read(header_bytes: int) -> None:
    data = struct.pack("<Q", header_bytes) + PADDING
    longest = 0

    def read_at(offset: int, length: int) -> bytes:
        nonlocal longest
        longest = max(longest, length)
        return data[offset : offset + length]

    assert format_borders(read_at, len(data), "x.safetensors") is None
    assert longest == 8


ARCHIVE = archive(tensors_of({"a": 200 * KIB, "b": 10, "c": 300 * KIB}))
# By name: Hypothesis prints what it draws from, and these are large.
ARCHIVES = {"zip": ARCHIVE, "zip64": zip64_directory(ARCHIVE)}
DIRECTORY_BYTES = len(ARCHIVE) - ARCHIVE.index(b"PK\x01\x02")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, DIRECTORY_BYTES), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    st.sampled_from(sorted(ARCHIVES)),
)
def test_a_damaged_directory_makes_no_error(patches: list[tuple[int, bytes]], original: str) -> None:
    data = bytearray(ARCHIVES[original])
    for from_end, patch in patches:
        at = len(data) - from_end
        data[at : at + len(patch)] = patch
    borders_of(bytes(data), "x.pt")


def test_a_directory_that_says_it_has_no_entries_gives_no_borders() -> None:
    data = bytearray(ARCHIVE)
    # Both counts of the last record: of this disk, and of all.
    at = data.rindex(b"PK\x05\x06") + 8
    data[at : at + 4] = bytes(4)
    assert borders_of(bytes(data), "x.pt") is None


@given(st.integers(0, len(ARCHIVE)))
def test_an_archive_that_was_cut_off_makes_no_error(size_bytes: int) -> None:
    borders_of(ARCHIVE[:size_bytes], "x.pt")


def test_a_file_that_shrinks_while_it_is_looked_at_has_no_borders() -> None:
    assert format_borders(lambda offset, length: ARCHIVE[offset : offset + length][:100], len(ARCHIVE), "x.pt") is None


def test_other_files_have_no_borders() -> None:
    assert borders_of(PADDING, "x.pt") is None
    assert borders_of(PADDING, "x.parquet") is None
    assert borders_of(b"", "x.safetensors") is None
