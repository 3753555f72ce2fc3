"""The command line: `lading`. Each command is a thin shell around the SDK.

Modules:
    main   the commands, and how errors become exit codes
"""
