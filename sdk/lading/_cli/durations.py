"""Times to live as people write them: `30d`, `12h`, `never`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

_NEVER = "never"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([1-9][0-9]{0,9})([smhdw])")


def parse_ttl(text: str, option: str) -> timedelta | None:
    """Return a time to live; None for an empty text, and zero, which is for ever, for `never`.

    Args:
        option: What the command calls it, for the message.

    Raises:
        typer.BadParameter: It is none of these.
    """
    if not text:
        return None
    if text == _NEVER:
        return timedelta(0)
    found = _DURATION.fullmatch(text)
    try:
        if found is not None:
            return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is no time to live; write 45s, 90m, 12h, 30d, 2w or never", param_hint=option)


def ttl_text(seconds: int) -> str:
    """Return a time to live for people, in the largest unit that has no rest: `30d`, `36h`; `never` for 0."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s" if seconds else _NEVER
