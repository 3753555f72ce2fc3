"""Hours of work next to a collector: writers and readers that reuse each other's chunks, and garbage all the time.

`python -m tests.soak` runs it; tests/faults/test_soak.py runs a short form of it.

Modules:
    calls     what a client may do, and what it may be refused. Pure
    worker    a client: a process with some tasks
    figures   what came of it all: counts, percentiles, JSON. Pure
    run       the servers, the clients, the collector, and the look at what is left
"""
