"""The service that knows names. So far it introduces the server.

Modules:
    component   the registry as a part of a server
    servicer    the methods of RegistryService
"""
