"""AccessService, put together from the servicers of its subjects."""

from __future__ import annotations

from lading_server.registry.domain.access import AccessRules
from lading_server.registry.service.alias_rules import AliasRulesServicer
from lading_server.registry.service.limits import LimitsServicer
from lading_server.registry.service.members import MembersServicer
from lading_server.registry.service.tenants import TenantsServicer


class AccessServicer(MembersServicer, TenantsServicer, AliasRulesServicer, LimitsServicer):
    """Serves one registry's access rules."""

    def __init__(self, access: AccessRules) -> None:
        self._access = access
