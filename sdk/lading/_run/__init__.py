"""A run: one execution that says what it uses, what it measures and what it makes.

Glossary:
    row      what one `run.log` said: values by key, at one step
    fields   a run's config or summary: keys with JSON values
    logged   an artifact that is on its way to become a version
    end      finished, failed, or abandoned: failed by an exception, with no time to wait for anything

Modules:
    run       the public face
    calls     the run's calls to the registry
    metrics   rows that wait to be sent
    fields    config and summary, and which of their keys wait to be sent
    recorder  sends both in the background, and says that the run lives
    uploads   artifacts that are logged in the background
"""
