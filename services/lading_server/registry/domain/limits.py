"""How many of something one call may bring. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lading_format.names import check_tag
from lading_server.common.errors import TooManyItems
from lading_server.common.settings import Settings


def check_count(settings: Settings, count: int, limit_name: str) -> None:
    """Raise TooManyItems when there are more than the limit of that name allows."""
    limit = int(getattr(settings, limit_name))
    if count > limit:
        raise TooManyItems(
            f"{count:,} are too many: {limit_name} is {limit:,}; divide them among several calls",
            limit_name=limit_name,
            limit=limit,
        )


def check_tags(settings: Settings, tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags sorted, each once. Raises InvalidName, TooManyItems."""
    different = sorted({check_tag(tag) for tag in tags})
    _check_tag_count(settings, len(different))
    return tuple(different)


def changed_tags(
    settings: Settings, tags: Sequence[str], add: Iterable[str], remove: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return tags with some removed, and then some added. Raises TooManyItems."""
    changed = sorted((set(tags) - set(remove)) | set(add))
    if len(changed) > len(tags):
        _check_tag_count(settings, len(changed))
    return tuple(changed)


def _check_tag_count(settings: Settings, count: int) -> None:
    if count > settings.max_tags:
        raise TooManyItems(
            f"{count:,} tags are too many: max_tags is {settings.max_tags:,}; remove some",
            limit_name="max_tags",
            limit=settings.max_tags,
        )
