"""Config and summary."""

from __future__ import annotations

import math

import pytest

import lading
from lading._run.fields import Fields


def test_only_what_was_set_is_sent() -> None:
    config = Fields("config", {"lr": 0.1})
    config.load({"from": "the server"})
    assert config.take_changes() == {}
    config["lr"] = 0.2
    config.update({"size": (1, 2)}, name="x")
    assert dict(config) == {"lr": 0.2, "from": "the server", "size": [1, 2], "name": "x"}
    changes = config.take_changes()
    assert changes == {"lr": 0.2, "size": [1, 2], "name": "x"}
    assert config.take_changes() == {}
    config["lr"] = 0.3
    config.put_back(changes)
    assert config.take_changes() == {"lr": 0.3, "size": [1, 2], "name": "x"}


def test_what_was_set_wins_over_the_last_metric() -> None:
    summary = Fields("summary")
    summary.show({"loss": 0.5, "accuracy": 0.9})
    summary["accuracy"] = 0.95
    summary.show({"loss": math.nan, "accuracy": 0.8})
    assert dict(summary) == {"loss": "NaN", "accuracy": 0.95}
    assert summary.take_changes() == {"accuracy": 0.95}


def test_many_keys_are_set_or_none() -> None:
    config = Fields("config")
    with pytest.raises(lading.InvalidArgument, match=r"config\.b"):
        config.update({"a": 1, "b": object()})
    assert dict(config) == {}
    assert config.take_changes() == {}
