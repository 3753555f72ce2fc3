"""What operators see: one line a record, and metrics over HTTP."""

from __future__ import annotations

import json
import logging
import socket
import sys
from urllib.request import urlopen

import pytest

from lading_server.common.logs import FIELDS, JsonFormatter, TextFormatter
from lading_server.common.metrics import Metrics


def _record(fields: dict[str, object], error: Exception | None = None) -> logging.LogRecord:
    trace = None
    if error is not None:
        try:
            raise error
        except Exception:
            trace = sys.exc_info()
    record = logging.LogRecord("lading.calls", logging.INFO, "file.py", 1, "a %s", ("call",), trace)
    setattr(record, FIELDS, fields)
    return record


def test_a_json_line_has_the_message_and_the_fields() -> None:
    line = JsonFormatter().format(_record({"entity": "acme", "milliseconds": 1.5}))
    assert "\n" not in line
    told = json.loads(line)
    assert (told["message"], told["level"], told["logger"]) == ("a call", "info", "lading.calls")
    assert (told["entity"], told["milliseconds"]) == ("acme", 1.5)
    assert told["time"].endswith("+00:00")


def test_a_traceback_stays_on_its_json_line() -> None:
    line = JsonFormatter().format(_record({}, ValueError("broken")))
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["traceback"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_a_caller_sends_cannot_look_like_another_line(formatter: logging.Formatter) -> None:
    line = formatter.format(_record({"entity": "x\n12:00:00 INFO all is well"}))
    assert len(line.splitlines()) == 1


def test_what_a_caller_sends_cannot_look_like_another_field() -> None:
    line = TextFormatter().format(_record({"entity": "x status=OK"}))
    assert line.endswith('entity="x status=OK"')


def test_metrics_are_served_while_the_block_lasts() -> None:
    metrics = Metrics()
    metrics.call_ended("/a/B", "OK", 0.01, 10, 20)
    metrics.chunks_stored(3, 300)
    metrics.chunks_deduplicated(2)
    metrics.blobs_committed(1)
    metrics.group_committed(5, 0.02)
    metrics.streams_open(4)
    with metrics.served("127.0.0.1", 0) as port, urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    assert {
        'lading_calls_total{method="/a/B",status="OK"} 1.0',
        'lading_call_seconds_count{method="/a/B"} 1.0',
        'lading_received_bytes_total{method="/a/B"} 10.0',
        'lading_sent_bytes_total{method="/a/B"} 20.0',
        'lading_chunks_total{outcome="stored"} 3.0',
        'lading_chunks_total{outcome="deduplicated"} 2.0',
        "lading_stored_bytes_total 300.0",
        "lading_blobs_committed_total 1.0",
        "lading_group_commits_total 1.0",
        "lading_group_units_total 5.0",
        "lading_open_streams 4.0",
    } <= set(lines)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"metrics on 127\.0\.0\.1:{port}: Address already in use"):
            Metrics().served("127.0.0.1", port).__enter__()
