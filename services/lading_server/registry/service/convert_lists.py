"""Between the messages of lists and plain values."""

from __future__ import annotations

from typing import Protocol

from lading_proto.registry.v1 import collections_pb2, events_pb2
from lading_server.registry.domain.lists import EventRequest
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.service.convert import timestamp_to_proto
from lading_server.registry.store.rows import EventRow, ProjectRow


class _Paged(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def page_from_proto(request: _Paged) -> PageRequest:
    """Return which page a request asks for."""
    return PageRequest(request.page_size, request.page_token)


def events_from_proto(request: events_pb2.ListEventsRequest) -> EventRequest:
    """Return which events a request asks for."""
    return EventRequest(
        project=request.project,
        collection=request.collection,
        version_uid=request.version_uid,
        after_revision=request.after_revision,
        newest_first=request.newest_first,
    )


def project_to_proto(row: ProjectRow) -> collections_pb2.Project:
    """Return a project as callers see it."""
    return collections_pb2.Project(name=row.name, created_at=timestamp_to_proto(row.created_at_ms))


def event_to_proto(row: EventRow) -> events_pb2.Event:
    """Return an event as callers see it."""
    return events_pb2.Event(
        revision=row.revision,
        time=timestamp_to_proto(row.time_ms),
        actor=row.actor,
        kind=row.kind,
        project=row.project,
        collection=row.collection,
        version_uid=row.version_uid.hex() if row.version_uid else "",
        run_id=row.run,
        before_json=row.before,
        after_json=row.after,
        sequence=row.sequence,
        origin=row.origin,
        chain_hash=row.chain_hash,
    )
