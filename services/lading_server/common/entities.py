"""What a tenant may be called, as the services say it. Pure."""

from __future__ import annotations

from lading_format.errors import InvalidName
from lading_format.names import check_entity_name
from lading_server.common.errors import InvalidEntity


def check_entity(name: str) -> str:
    """Return `name`, or raise InvalidEntity."""
    try:
        return check_entity_name(name)
    except InvalidName as error:
        raise InvalidEntity(error.message) from error
