"""Where a server leaves word of itself for shells of the same user on the same machine, so that they need no settings.

The file is JSON with `address` (`host:port`, with `grpcs://` before it where the server has TLS), `key_file` (an
absolute path, or empty where no key is needed) and `pid`.
It has mode 0600 in a directory of mode 0700; a reader believes it only if it belongs to the reader's own user.
"""

from __future__ import annotations

import os
import warnings

from platformdirs import user_runtime_dir

# A client next door writes these for the same server; a file name needs one spelling.
_SAME_HOSTS = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared, never bound)


def local_host(host: str) -> str:
    """Return the host that clients of this machine dial to reach a server which listens on `host`."""
    return _SAME_HOSTS.get(host.lower(), host.lower())


def local_server_path(host: str, port: int) -> str:
    """Return the path of the file that a server at this address of this machine leaves. The file may not be there.

    Args:
        host: As the server listens on it or the client dials it, without brackets. `localhost` is 127.0.0.1, and a
            server that listens on every address is found at the loopback one.
        port: The real one, never 0.

    Raises:
        OSError: The user has no directory for such files that others cannot write to.
    """
    # No colon: Windows cannot have one in a file's name.
    name = f"{local_host(host)}_{port}.json".replace(":", "-")
    with warnings.catch_warnings():
        # It warns where XDG_RUNTIME_DIR is not set, which is every container; its other choice is as good.
        warnings.simplefilter("ignore")
        directory = user_runtime_dir("lading", appauthor=False)
    return os.path.join(directory, "servers", name)
