"""What Prometheus sees: one object that is handed around, with a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

# From a local resolve to an hour-long upload.
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)


class Metrics:
    """Counters of calls and of content."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "status"]
        self._calls = Counter("lading_calls_total", "Calls that ended.", labels, registry=self.registry)
        self._seconds = Histogram(
            "lading_call_seconds", "How long calls took.", ["method"], buckets=_SECONDS, registry=self.registry
        )
        self._received = Counter(
            "lading_received_bytes_total", "Bytes of request messages.", ["method"], registry=self.registry
        )
        self._sent = Counter(
            "lading_sent_bytes_total", "Bytes of response messages.", ["method"], registry=self.registry
        )
        self._chunks = Counter(
            "lading_chunks_total", "Chunks that were acknowledged.", ["outcome"], registry=self.registry
        )
        self._stored = Counter("lading_stored_bytes_total", "Bytes of chunks that were stored.", registry=self.registry)
        self._blobs = Counter("lading_blobs_committed_total", "Blobs that were committed.", registry=self.registry)
        self._streams = Gauge("lading_open_streams", "Streaming calls that are open.", registry=self.registry)
        self._groups = Counter("lading_group_commits_total", "Group commits.", registry=self.registry)
        self._units = Counter(
            "lading_group_units_total", "Units that group commits made durable.", registry=self.registry
        )
        self._group_seconds = Histogram(
            "lading_group_commit_seconds", "Sync and transaction of a group.", buckets=_SECONDS, registry=self.registry
        )
        self._lost = Counter(
            "lading_lost_records_total", "Chunks and tree pages that were found lost.", registry=self.registry
        )
        self._checked = Counter(
            "lading_checked_bytes_total", "Bytes of packs that checks have read.", registry=self.registry
        )
        self._findings = Counter(
            "lading_check_findings_total", "What checks have found.", ["kind"], registry=self.registry
        )

        self._freed = Counter(
            "lading_garbage_freed_bytes_total", "Bytes that collections freed on the disk.", registry=self.registry
        )
        self._trash = Gauge(
            "lading_garbage_trash_bytes", "Bytes of packs that wait for their deletion.", registry=self.registry
        )
        self._garbage_seconds = Gauge(
            "lading_garbage_run_seconds", "How long the last collection took.", registry=self.registry
        )

    def call_ended(self, method: str, status: str, seconds: float, received_bytes: int, sent_bytes: int) -> None:
        """Count a call."""
        self._calls.labels(method, status).inc()
        self._seconds.labels(method).observe(seconds)
        self._received.labels(method).inc(received_bytes)
        self._sent.labels(method).inc(sent_bytes)

    def streams_open(self, count: int) -> None:
        """Tell how many streaming calls are open."""
        self._streams.set(count)

    def group_committed(self, units: int, seconds: float) -> None:
        """Count a group commit."""
        self._groups.inc()
        self._units.inc(units)
        self._group_seconds.observe(seconds)

    def chunks_stored(self, count: int, size_bytes: int) -> None:
        """Count chunks that were not there before."""
        self._chunks.labels("stored").inc(count)
        self._stored.inc(size_bytes)

    def chunks_deduplicated(self, count: int) -> None:
        """Count chunks that were sent although they were there."""
        self._chunks.labels("deduplicated").inc(count)

    def blobs_committed(self, count: int) -> None:
        """Count blobs that were not there before."""
        self._blobs.inc(count)

    def content_lost(self, count: int) -> None:
        """Count chunks and tree pages that were found lost."""
        self._lost.inc(count)

    def checked(self, size_bytes: int) -> None:
        """Count bytes of packs that a check has read."""
        self._checked.inc(size_bytes)

    def check_found(self, kind: str) -> None:
        """Count what a check has found."""
        self._findings.labels(kind).inc()

    def garbage_collected(self, freed_bytes: int, trash_bytes: int | None, seconds: float) -> None:
        """Count a run of the collector. `trash_bytes` is None where it did not look at every entity."""
        self._freed.inc(freed_bytes)
        if trash_bytes is not None:
            self._trash.set(trash_bytes)
        self._garbage_seconds.set(seconds)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Serve the metrics over HTTP for the length of the block; yields the port. Raises OSError that names it."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise OSError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another --metrics-port"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
