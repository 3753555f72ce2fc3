"""The fast path up: what is missing is sent, and nothing else.

    content.py    what travels: a file that is read, its chunks
    flow.py       the budget of bytes in memory, and queues between tasks
    read.py       reading, cutting and hashing, in threads
    session.py    the lease on the chunks of one upload
    chunks.py     asking which chunks are missing, and sending those
    lanes.py      one PutChunks stream: window, acknowledgements
    wire.py       the messages of that stream, as bytes
    blobs.py      committing recipes, and repairing those that miss chunks
    streamed.py   committing the recipe of a large file while it is still being sent
    files.py      files on their way from the disk to committed blobs
    known.py      files that did not change since they were stored: neither read nor sent
    tree.py       PutTree
    run.py        one upload, from files to a tree

Chunks go read → asked → sent → acknowledged; a file whose chunks are all there is committed; when all files are, the
tree is put. Only `files.py` and `run.py` know the whole; each other module knows its own step.
"""
