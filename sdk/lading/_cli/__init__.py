"""The command line: `lading`. Each command is a thin shell around the SDK.

Glossary:
    reference  `[entity/][project/]name[:alias | :vN | @b3:hex]`; what is left out is the settings' or the key's
    document   what `--json` prints: a JSON object on one line; a listing prints one a line
    end        how a command ends, as a shell sees it: an exit code

Modules:
    main       the commands in the order of `lading --help`, and what becomes of errors
    exits      exit codes, and the one table from the SDK's errors to them
    account    login, whoami
    members    key, member, entity
    rules      rule list, rule set, rule delete
    transfers  put, get, cat, verify
    lists      ls, search, runs
    versions   show, history, diff, lineage
    names      alias, tag, link, unlink
    deleting   delete, undelete, collection, project
    audit      audit verify
    cache      cache info, cache prune, cache verify
    programs   serve, demo: other programs that take this one's place
    options    arguments and options that several commands have, and groups of commands
    listing    how a command prints what there are several of
    session    the client that a command works with
    output     tables, documents and bytes on stdout; messages on stderr
    documents  from the SDK's values to documents. Pure
    changes    what an event changed and what a rule demands, in a few words. Pure
    graph      lineage as a tree, as Mermaid and as DOT. Pure
    progress   how far a transfer is, as plain lines, or as bars where a person looks
    bars       the bars; loads rich
"""
