"""gRPC, without the fork handlers that it comes with. Every module that needs gRPC takes it from here.

Its core handles forks unless GRPC_ENABLE_FORK_SUPPORT says otherwise at the moment of its import, and beside the
asynchronous stack it does that badly: while the parent was uploading, one child in five that did nothing with gRPC
ended by SIGSEGV, and every fork wrote a line to standard error (grpcio 1.85; without the handlers, none of 360 did).
PyTorch's DataLoader forks. Whoever sets the variable is obeyed; where gRPC was imported before, this changes nothing.
"""

import os

_FORK_HANDLERS = "GRPC_ENABLE_FORK_SUPPORT"

_is_set = _FORK_HANDLERS in os.environ
if not _is_set:
    os.environ[_FORK_HANDLERS] = "0"

import grpc  # noqa: E402 - the variable comes first
import grpc.aio  # noqa: E402

if not _is_set:
    # Other programs that this one starts may want the handlers.
    del os.environ[_FORK_HANDLERS]

__all__ = ["grpc"]
