"""What an event changed, in a few words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import lading
from lading._cli.durations import ttl_text
from lading._cli.output import count_text, size_text, time_text

_NONE = "none"
# In milliseconds.
_EXPIRES = "expires_at_ms"
# A card or a configuration is longer than a line; `--json` has all of it.
_VALUE_CHARACTERS = 40


def change_text(event: lading.Event) -> str:
    """Return what an event changed: `best: v3 -> v5`, `tags: ["a"] -> ["a", "b"]`, `v5, 12 files, 3.4 MB`."""
    before, after = event.before or {}, event.after or {}
    if event.kind.startswith("alias_rule."):
        return f"{(after or before).get('alias')}: {rule_text(before)} -> {rule_text(after)}"
    if event.kind.startswith("retention_rule."):
        return f"{retention_text(before)} -> {retention_text(after)}"
    if event.kind == "version.deleted" and "why" in after:
        return f"{_version(before)}, {after['why']}"
    alias = after.get("alias", before.get("alias"))
    if alias is not None:
        return f"{alias}: {_version(before) or _NONE} -> {_version(after) or _NONE}"
    if before and after:
        changed = [key for key in after if before.get(key) != after[key]]
        texts = [f"{_label(key)}: {_value(key, before.get(key))} -> {_value(key, after[key])}" for key in changed]
    else:
        texts = _facts(after or before)
    by_run = [f"run {event.run_id}"] if event.run_id and event.version_uid else []
    return ", ".join([text for text in (*texts, *by_run) if text])


def rule_text(about: Mapping[str, Any]) -> str:
    """Return what a rule demands: `admins only, tag approved, metadata eval.accuracy`."""
    if not about:
        return _NONE
    demands = ["admins only"] if about.get("protected") else []
    demands += [f"tag {tag}" for tag in about.get("required_tags", ())]
    demands += [f"metadata {key}" for key in about.get("required_metadata", ())]
    return ", ".join(demands) or "anything"


def retention_text(about: Mapping[str, Any]) -> str:
    """Return what a rule of retention keeps: `last 5, best 3 by metadata.accuracy (max), 30 days, tag release`."""
    if not about:
        return _NONE
    parts = ["all"] if about.get("keep_all") else []
    if about.get("keep_last"):
        parts.append(f"last {about['keep_last']:,}")
    if about.get("keep_best"):
        order = "min" if about.get("best_is_smallest") else "max"
        parts.append(f"best {about['keep_best']:,} by metadata.{about.get('best_key')} ({order})")
    if about.get("keep_days"):
        parts.append(f"{about['keep_days']:,} days")
    parts += [f"tag {tag}" for tag in about.get("keep_tags", ())]
    if about.get("default_ttl_seconds"):
        parts.append(f"new ones for {ttl_text(about['default_ttl_seconds'])}")
    return ", ".join(parts)


def _label(key: str) -> str:
    return "expires" if key == _EXPIRES else key


def _value(key: str, value: object) -> str:
    if key == _EXPIRES and isinstance(value, int):
        return time_text(datetime.fromtimestamp(value / 1000, UTC))
    return _short(value)


def _facts(about: Mapping[str, Any]) -> list[str]:
    """Return what is worth a line of something that was made or went away."""
    facts = [_version(about)]
    if "source" in about:
        facts.append(f"a link to {about['source']}")
    elif "file_count" in about and "size_bytes" in about:
        facts += [count_text(about["file_count"], "file"), size_text(about["size_bytes"])]
    facts += [f"{key} {_short(about[key])}" for key in ("name", "type", "state") if key in about]
    return facts


def _version(about: Mapping[str, Any]) -> str:
    return f"v{about['number']}" if "number" in about else ""


def _short(value: object) -> str:
    if value is None:
        return _NONE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 1]}…"
