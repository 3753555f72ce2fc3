"""The rules of the registry: what names may be given, moved and taken away, and what follows from it.

Knows neither gRPC nor generated code.

Modules:
    aliases         what may be done with aliases
    background      what the registry does by itself
    closing         the end of what runs in the background
    collections     collections, made, told about and changed
    commit_request  what CommitVersion is asked for
    commits         an intent, a pin, and then the version
    documents       JSON objects and Markdown that callers bring
    fingerprints    what tells two requests apart
    keys            whom a key belongs to, and the first one
    limits          how many of something one call may bring
    lineage         what runs used, and the graph around a version
    lists           lists and searches, a page at a time
    metrics         what runs measured
    outcomes        what a change came to, remembered
    pages           what fits into one answer
    queries         how people write what they search for
    references      references to versions, as requests write them
    refs            aliases and links, changed together or not at all
    registry        everything of the registry, put together
    run_sweeper     finds runs that stopped beating
    runs            runs: created, heard of, changed and ended
    summaries       configs and summaries of runs
    versions        versions that are there: found, described, deleted
"""
