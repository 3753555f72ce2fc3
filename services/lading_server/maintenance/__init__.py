"""Backup, restore and repair of what the services remember. Knows both of them; neither knows it.

Glossary:
    half      one of the two services, as far as its database goes
    places    where the packs and both databases are
    backup    a directory with both databases as SQLite files, whatever they are kept in, and a manifest

Modules:
    halves     the two databases: tables, migrations, places
    aside      keeping a database that is to be replaced
    snapshots  a database at one moment, as a file, while others write to it
    manifest   what a backup says of itself
    backup     making one
    restore    putting one in the place of databases that were lost
    rebuild    the index of the packs, with the lock and word of what is unfinished
    commands   the command line: `lading backup`, `lading restore`, `lading rebuild-index`
"""
