"""Ingest's database from its packs: all of it, or what a restored one does not know yet.

Glossary:
    adopt     read a pack of the storage, verify each record, and make rows of what is whole
    judge     look whether each blob and tree has everything that it needs

Modules:
    rebuild   the order in which it all happens
    survey    which packs there are, and which of them the index knows as they are
    adoption  chunks, pages, and the blobs of one chunk that pages name
    recipes   blobs of many chunks
    trees     trees from their pages
    judgement the states of blobs and trees, and what entities store
    report    what was found

Each step may be ended at any moment and done again: a pack's own row is the last that is written of it.
"""
