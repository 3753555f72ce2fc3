"""RegistryService and AccessService over the domain: each method names its rule and converts. No rules here.

Modules:
    servicer   the service, put together from the servicers of its subjects
    versions   collections, versions, aliases and links
    deletions  what goes and comes back
    runs       runs, metrics and lineage
    lists      listing, searching and events
    access     AccessService, put together in the same way
    members    members and their keys
    alias_rules  rules of aliases
    tenants    entities themselves
    limits     what entities may use
    keys       KeyService, which ingest asks
    retention  RetentionService
    callers    who calls
    convert    the borders between the protocol's messages and plain values
    convert_versions, convert_deletions, convert_runs, convert_lists, convert_access, convert_retention
               those of each subject
    room       what fits into an answer
"""
