"""The rules of the registry: what names may be given, moved and taken away, and what follows from it.

Knows neither gRPC nor generated code.

Modules:
    access          who may do what, put together
    aliases         what may be done with aliases
    alias_rules     who may move an alias, and what a version needs for it
    background      what the registry does by itself
    closing         the end of what runs in the background
    collections     collections, made, told about and changed
    commit_request  what CommitVersion is asked for
    commits         an intent, a pin, and then the version
    documents       JSON objects and Markdown that callers bring
    first_keys      the keys that a server makes by itself
    entity_limits   what the operator lets entities use
    fingerprints    what tells two requests apart
    issued_keys     keys made, revoked and listed
    keys            whom a key belongs to, and when it was last used
    limits          how many of something one call may bring
    lineage         what runs used, and the graph around a version
    lists           lists and searches, a page at a time
    members         who has a role in an entity
    metrics         what runs measured
    named_pages     short lists, sorted by a name
    outcomes        what a change came to, remembered
    pages           what fits into one answer
    queries         how people write what they search for
    references      references to versions, as requests write them
    refs            aliases and links, changed together or not at all
    registry        everything of the registry, put together
    retention       what retention deletes, simulated and applied
    retention_plan  which versions stay, and why
    retention_rules  rules of retention, set and told
    retention_sweep  retention that the server applies by itself
    run_sweeper     finds runs that stopped beating
    runs            runs: created, heard of, changed and ended
    summaries       configs and summaries of runs
    tenants         entities themselves, as the operator sees them
    time_to_live    when a version goes by itself
    versions        versions that are there: found, described, deleted
"""
