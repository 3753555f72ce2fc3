"""What an event changed, in a few words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import lading
from lading._cli.output import count_text, size_text

_NONE = "none"
# A card or a configuration is longer than a line; `--json` has all of it.
_VALUE_CHARACTERS = 40


def change_text(event: lading.Event) -> str:
    """Return what an event changed: `best: v3 -> v5`, `tags: ["a"] -> ["a", "b"]`, `v5, 12 files, 3.4 MB`."""
    before, after = event.before or {}, event.after or {}
    if event.kind.startswith("alias_rule."):
        return f"{(after or before).get('alias')}: {rule_text(before)} -> {rule_text(after)}"
    alias = after.get("alias", before.get("alias"))
    if alias is not None:
        return f"{alias}: {_version(before) or _NONE} -> {_version(after) or _NONE}"
    if before and after:
        changed = [key for key in after if before.get(key) != after[key]]
        texts = [f"{key}: {_short(before.get(key))} -> {_short(after[key])}" for key in changed]
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
