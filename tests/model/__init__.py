"""An exhaustive model of the protocol of pins and collection: every history of a few small worlds is walked.

`python -m tests.model` prints what was walked, and for each weakened rule the shortest history in which it breaks
the promise. docs/reliability.md says what is left out.

Glossary:
    world     a few versions, trees, blobs and chunks, and the kinds of trouble that may come
    action    one atomic step of somebody: a transaction, a message that arrives, a file that goes
    weakness  one rule left out, or done in another order: the model has to find what that breaks

Modules:
    state       what a moment is made of
    clients     uploads, commits of blobs and trees
    registry    versions, and the messages between registry and ingest
    collector   condemning, deleting, compaction
    losses      what a disk loses, and how it is healed
    restores    reconciling, and databases that go back to a backup
    promises    what has to hold in every state, and what has to stay possible
    explore     the walk
    worlds      the worlds, and the weaknesses with the world in which each shows
"""
