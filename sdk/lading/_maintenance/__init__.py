"""Keeping a store: what is collected as garbage, and what keeps content from it.

Modules:
    models   the values; they know no protocol
    convert  between the protocol's messages and the values
    calls    the calls to MaintenanceService
"""
