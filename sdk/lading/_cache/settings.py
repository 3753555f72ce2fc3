"""Where the cache is and how large it may be, from the environment. Reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from platformdirs import user_cache_dir

from lading._errors import InvalidArgument

DIRECTORY = "LADING_CACHE_DIR"
LIMIT = "LADING_CACHE_BYTES"

# Two or three checkpoints of a model that fits on one accelerator, and little of a disk of today.
DEFAULT_LIMIT_BYTES = 10 << 30

_OFF = ("", "off")


def cache_directory(environ: Mapping[str, str]) -> str | None:
    """Return the directory of what is remembered; None where `LADING_CACHE_DIR` is empty or `off`."""
    directory = environ.get(DIRECTORY)
    if directory is None:
        return user_cache_dir("lading", appauthor=False)
    return None if directory.lower() in _OFF else directory


def cache_limit_bytes(environ: Mapping[str, str]) -> int:
    """Return how many bytes the files in it may have together; 0 keeps none.

    Raises:
        InvalidArgument: `LADING_CACHE_BYTES` is no such number.
    """
    text = environ.get(LIMIT, "").strip()
    if not text:
        return DEFAULT_LIMIT_BYTES
    if not text.isascii() or not text.isdecimal():
        raise InvalidArgument(f"{LIMIT} is {text[:40]!r}. Give a number of bytes, such as 10737418240; 0 for no files.")
    return int(text)
