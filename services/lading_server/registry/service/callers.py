"""Who calls: what the interceptor knows of a call, and the entity that its request names."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_server.common.callers import Caller, current_principal
from lading_server.common.entities import check_entity

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def caller_of(entity: str, context: Context) -> Caller:
    """Return who makes the call that this task works on, inside the entity of the request.

    That the caller's key is for the entity was checked before the method was called.

    Raises:
        InvalidEntity: The request names no entity, or one that is malformed.
    """
    return Caller(check_entity(entity), current_principal().name)
