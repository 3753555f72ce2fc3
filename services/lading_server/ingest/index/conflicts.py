"""Transactions that are run again when PostgreSQL undid them because of another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from lading_server.common.database import is_conflict

T = TypeVar("T")

# Rows are locked in one order, so that is rare: see `group`.
_RETRIES = 10


async def run_again_on_conflict(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt`, one transaction, returns. Raises what it raises, a conflict after ten times."""
    for _ in range(_RETRIES):
        try:
            return await attempt()
        except DBAPIError as error:
            if not is_conflict(error):
                raise
    return await attempt()
