"""The table from errors to statuses is total, and a status fits into what clients accept."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from lading_format.errors import InvalidPath, PathConflict, ReasonedError
from lading_server.common.errors import DatabaseAway, DiskLow, Draining, IsReference, SessionExpired, TooManyStreams
from lading_server.common.grpc_status import DETAILS_KEY, STATUSES, item_error, status_of

# What gRPC clients accept as trailers by default.
CLIENT_TRAILER_BYTES = 8 << 10


def _kinds(kind: type[ReasonedError]) -> Iterator[type[ReasonedError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _kinds(sub)


def _details(error: ReasonedError) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    ((key, raw),) = status_of(error).trailers
    assert key == DETAILS_KEY
    status = status_pb2.Status.FromString(raw)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return status, info


def test_every_error_with_a_reason_has_a_status() -> None:
    reasoned = {kind for kind in _kinds(ReasonedError) if "reason" in vars(kind)}
    assert len(reasoned) > 30
    assert {kind.__name__ for kind in reasoned ^ STATUSES.keys()} == set()


def test_no_reason_is_used_twice() -> None:
    reasons = [kind.reason for kind in STATUSES]
    assert len(set(reasons)) == len(reasons)


def test_a_status_says_the_same_in_its_details() -> None:
    error = DiskLow("too little space; free some", free_bytes=5, required_bytes=7)
    status, info = _details(error)
    assert status_of(error).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (status.code, status.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], error.message)
    assert (info.reason, info.domain) == ("DISK_LOW", "lading")
    assert dict(info.metadata) == {"free_bytes": "5", "required_bytes": "7"}


@pytest.mark.parametrize("error", [Draining("soon"), DatabaseAway("soon"), TooManyStreams("many", limit=1)])
def test_what_passes_by_itself_says_when_to_try_again(error: ReasonedError) -> None:
    status, _ = _details(error)
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds > 0


def test_what_does_not_pass_by_itself_names_no_delay() -> None:
    assert len(_details(SessionExpired("open another"))[0].details) == 1


def test_an_item_gets_the_number_the_reason_and_the_message() -> None:
    assert item_error(SessionExpired("open another")) == (9, "SESSION_EXPIRED", "open another")


@given(st.text(max_size=3000), st.dictionaries(st.text("abc_", min_size=1, max_size=20), st.text(max_size=6000)))
def test_a_status_of_any_text_fits_into_trailers(message: str, metadata: dict[str, str]) -> None:
    status = status_of(InvalidPath(message, **metadata))
    ((_, details),) = status.trailers
    # As the most wasteful client sees it: base64, and three bytes for each that HTTP/2 may not carry.
    assert len(details) * 4 / 3 + len(quote(status.message)) < CLIENT_TRAILER_BYTES


def test_the_longest_uri_of_a_reference_is_told_whole() -> None:
    uri = "s3://" + "u" * 4091
    _, info = _details(IsReference(f"it is at {uri}", uri=uri))
    assert info.metadata["uri"] == uri


def test_the_longest_paths_of_a_conflict_are_told_whole() -> None:
    path, other = "é" * 512, "è" * 512
    _, info = _details(PathConflict(f"{path} and {other}", path=path, other=other))
    assert dict(info.metadata) == {"path": path, "other": other}


def test_a_path_that_is_no_unicode_is_told_escaped() -> None:
    status, info = _details(InvalidPath("bad \udcff path", path="\udcff"))
    assert status.message == "bad \\udcff path"
    assert info.metadata["path"] == "\\udcff"
