"""The Lading server: ingest knows content, registry knows names.

Modules:
    app        both in one process
    common     what every server stands on
    ingest     chunks, blobs and trees
    registry   names
"""
