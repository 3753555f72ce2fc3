"""What every server stands on. Knows neither content nor names.

Modules:
    errors        what can go wrong, in the domain's words
    registry_errors what can go wrong with names
    callers       who calls, and for which entity
    allowances    what an entity and its keys may use
    rates, open_streams
                  how often they may call, and how many streams they may have open
    keys          how API keys are written, made and hashed
    roles         what roles there are, and the one table of who may call what
    access        who makes a call, and whether that is allowed: the one place where keys are verified
    tls           certificates: what a server shows, whom it trusts, and how both are read again
    keys_for_reading
                  keys that were good go on reading while the registry is away
    peers         calls from one service to the other
    local_file    word for the shells of the server's own user
    pins          what the registry asks of ingest
    page_tokens   where a listing goes on
    grpc_status   the one table from errors to statuses
    interceptor   what every call goes through
    calls         what is known of one call, for the log and the metrics
    drain         a server that is about to stop
    serving       a gRPC server with health, reflection and an orderly end
    streams       deadlines for progress
    one_ahead     what is read while the one before it is used
    settings      flags, variables, limits
    logs, metrics what operators see
    database      engines and transactions on SQLite and PostgreSQL
    ids           identifiers that sort by time
"""
