"""Word for the shells of the server's own user: where it listens and where the key is. They need no settings then."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lading_format.local_server import local_host, local_server_path
from lading_server.common.settings import shown_address

_log = logging.getLogger(__name__)


@contextmanager
def announced(host: str, port: int, key_file: str, *, tls: bool = False) -> Iterator[None]:
    """Leave the file that `lading_format.local_server` describes for the length of the block.

    A server that cannot leave it serves all the same; its clients have to be told the address.
    """
    try:
        path = local_server_path(host, port)
        address = f"{'grpcs://' if tls else ''}{shown_address(local_host(host), port)}"
        _write(path, {"address": address, "key_file": key_file, "pid": os.getpid()})
    except OSError as error:
        _log.warning("clients of this machine have to be given the address: %s", error)
        yield
        return
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _write(path: str, content: dict[str, object]) -> None:
    directory = os.path.dirname(path)
    lading = os.path.dirname(directory)
    # One by one: makedirs gives its mode to the last one only.
    for made in (os.path.dirname(lading), lading, directory):
        os.makedirs(made, mode=0o700, exist_ok=True)
    temporary = os.path.join(directory, f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    os.replace(temporary, path)
