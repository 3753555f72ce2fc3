"""Who calls: what the interceptor knows of a call, and the entity that its request names."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

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
    principal = current_principal()
    return Caller(check_entity(entity), principal.name, origin_of(context.peer()), principal.role)


def operator_of(context: Context) -> Caller:
    """Return who makes the call that this task works on, inside no entity: it is the operator."""
    principal = current_principal()
    return Caller("", principal.name, origin_of(context.peer()), principal.role)


@lru_cache(maxsize=1024)
def origin_of(peer: str) -> str:
    """Return where a call came from: the address of `ipv4:10.0.0.7:5123`, without a port that says nothing.

    Whatever is not an address is told by its kind alone: `unix`. It is the peer of the connection, so behind a proxy
    that of the proxy: headers that name another are not believed, for every caller can write them.
    """
    kind, _, rest = peer.partition(":")
    host, _, _ = unquote(rest).rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return kind
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
