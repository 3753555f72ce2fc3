"""How a command ends, as a shell sees it, and the one table from the SDK's errors to that."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from lading import _errors


class Exit(IntEnum):
    """The exit codes; `lading --help` and docs/cli.md list them."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    INTEGRITY = 4
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of SIGINT, as shells count."""


EXITS: Mapping[type[_errors.LadingError], Exit] = MappingProxyType(
    {
        _errors.LadingError: Exit.FAILED,
        _errors.InvalidArgument: Exit.USAGE,
        _errors.NotFound: Exit.NOT_FOUND,
        _errors.AlreadyExists: Exit.FAILED,
        _errors.Conflict: Exit.FAILED,
        _errors.ContentMoved: Exit.FAILED,
        _errors.FailedPrecondition: Exit.FAILED,
        _errors.SessionExpired: Exit.FAILED,
        _errors.MissingContent: Exit.FAILED,
        _errors.ResourceExhausted: Exit.FAILED,
        _errors.Busy: Exit.FAILED,
        _errors.Unavailable: Exit.FAILED,
        _errors.OutcomeUnknown: Exit.FAILED,
        _errors.Untrusted: Exit.FAILED,
        _errors.IntegrityError: Exit.INTEGRITY,
        _errors.UnsafePath: Exit.FAILED,
        _errors.FileChanged: Exit.FAILED,
        _errors.NotLogged: Exit.FAILED,
        _errors.Unauthenticated: Exit.FAILED,
        _errors.PermissionDenied: Exit.FAILED,
        _errors.Incompatible: Exit.FAILED,
        _errors.NotLogged: Exit.FAILED,
    }
)
"""What each error ends a command with. Total: tests/unit/lading/cli/test_exits.py."""

ADVICE: Mapping[type[_errors.LadingError], str] = MappingProxyType(
    {_errors.Unauthenticated: "Run `lading login`, or set LADING_API_KEY."}
)
"""What to do next at a shell, where the server's own words are about calls."""
