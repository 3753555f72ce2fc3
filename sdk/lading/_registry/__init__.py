"""The registry's side of the client: names, and what is known of them.

Glossary:
    connection  settings, channels and retries: what every call goes through
    reference   `[entity/][project/]name[:alias | :vN | @b3:hex]`; what is left out is the client's
    view        a value as a call saw it; it does not change when the registry does

Modules:
    models      the values; they know no protocol
    access_models  those of members, keys, alias rules and tenants
    names       references, with what they leave out filled in
    convert     between the protocol's messages and the values
    pages       listings, page by page
    connection  which server, whose entity, and calls to it
    reads       the calls that change nothing
    writes      the calls that do
    deletions   the calls that delete and undelete
    access      the calls about members, keys, alias rules and tenants
    convert_access  between their messages and the values
    retention   the calls about which versions stay
    retention_models  their values
    convert_retention  between their messages and the values
"""
