"""What the registry remembers: names, and what they stand for. Knows no gRPC, and no rule about names.

Glossary:
    change: one transaction that makes events. Changes go one after the other, so revisions are commit-ordered.
    revision: the number of an event, in the order of all changes of the server.
    live: a version that was not deleted.
    deleted: what is not found and can be had back; purged: what cannot.
    deletion: the number that all has that was deleted together, so that it comes back together.
    commit: a version that has no number yet, because its pin is being asked for.

Modules:
    schema           the tables; migrations/ makes them
    rows             what goes in and what comes out
    change           a transaction that makes events and remembers its request
    entities         tenants and projects
    entity_limits    what a tenant and its keys may use
    keys             whose each API key is
    members          who has a role in an entity
    collections      how a collection is read
    collection_changes  what changes collections
    versions         how a version is read, whatever asks for it
    version_changes  what changes versions
    deletions        versions that go and come back, many at once
    collection_states  collections and projects that go and come back
    aliases          where aliases point, and their moves
    alias_rules      rules of aliases, and what is held against them
    runs             runs, and what they used and logged
    metrics          what runs measured
    lineage          edges between runs and versions, of many at once
    conditions       what is searched for, as plain values
    terms            what conditions mean in SQL
    scan             pages of rows that pass a filter, at a bounded cost
    search           which versions match conditions, in an order
    lists            projects, collections, a collection's versions, events
    retention_rules  rules of retention
    retention        what decides which versions stay
    pending          commits without a number, pins to release, requests that are remembered
    store            opens it all
"""
