"""Times to live as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from lading._cli.durations import parse_ttl, ttl_text


@pytest.mark.parametrize(
    ("text", "ttl"),
    [
        ("", None),
        ("never", timedelta(0)),
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_time_to_live_is_a_number_and_a_unit(text: str, ttl: timedelta | None) -> None:
    assert parse_ttl(text, "--ttl") == ttl


@pytest.mark.parametrize("text", ["0", "0d", "30", "d", "1.5h", "-1d", "30 d", "1y", "9999999999w"])
def test_what_is_none_is_a_mistake_in_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 45s, 90m, 12h, 30d, 2w or never"):
        parse_ttl(text, "--ttl")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "never"), (1, "1s"), (90, "90s"), (5400, "90m"), (129_600, "36h"), (1_209_600, "14d")]
)
def test_a_time_to_live_is_told_in_the_largest_unit_without_a_rest(seconds: int, text: str) -> None:
    assert ttl_text(seconds) == text
    assert seconds == 0 or (parse_ttl(text, "--ttl") or timedelta(0)).total_seconds() == seconds
