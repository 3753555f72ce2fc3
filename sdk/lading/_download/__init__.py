"""The way down: what is there already is kept, the rest is fetched, verified, and only then named.

    plan.py       what a listing asks for; refuses listings that are unsafe or not the tree's
    planning.py   the listing, from the cache or from the server
    existing.py   finds what is there already
    wire.py       reads messages without copies of their data
    pieces.py     checks that a ReadBlobs stream sends what was asked for, in order
    small.py      files that are fetched many to a stream
    large.py      one file, that can be continued
    run.py        one download, from a digest to a directory

Nothing is written before the whole listing was checked; everything is written through lading._files.
"""
