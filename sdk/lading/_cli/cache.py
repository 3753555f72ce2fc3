"""What this machine keeps of what it fetched: `cache` with what it can be told to do. Needs no server."""

from __future__ import annotations

from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.exits import Exit
from lading._cli.options import AsJson, group
from lading._cli.output import count_text, print_document, print_fields, print_line, print_message, size_text, time_text

app = group("Look after the local cache: files that were fetched, by their digests.")


@app.command()
def info(as_json: AsJson = False) -> None:
    """Tell where the local cache is and what is in it."""
    told = _cache().info()
    if as_json:
        print_document(document(told))
        return
    print_fields(
        {
            "path": told.path,
            "files": f"{told.files:,}",
            "trees": f"{told.trees:,}",
            "size": f"{size_text(told.size_bytes)} of {size_text(told.limit_bytes)}",
            "oldest use": time_text(told.oldest_use),
        }
    )


@app.command()
def prune(
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="How many bytes may be left; 0 for none. Default: the cache's limit."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove from the local cache what was not used for longest.

    A cache that holds more than it may comes down to nine tenths of that. One that holds less is left as it is.
    """
    done = _cache().prune(max_bytes)
    if as_json:
        print_document(document(done))
    else:
        removed = f"{count_text(done.entries, 'item')}, {size_text(done.size_bytes)}"
        print_line(f"removed {removed}; {size_text(done.left_bytes)} left")


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Read and hash all of the local cache, and drop what is wrong.

    What is dropped is fetched again when it is wanted. Ends with 4 where something was wrong; not for a downloaded file
    that was edited in its place, which is not kept any more. Downloads need no such check: they hash what they take.
    """
    found = _cache().verify()
    if as_json:
        print_document({"ok": found.ok, **document(found)})
    else:
        for digest in found.dropped:
            print_line(f"dropped  {digest}")
        for digest in found.edited:
            print_line(f"edited   {digest}")
    if not found.ok:
        print_message(
            f"lading: {len(found.dropped)} of {found.checked:,} were wrong and are gone; they are fetched when they "
            "are wanted. If there are more the next time, have the disk looked at."
        )
        raise typer.Exit(Exit.INTEGRITY)
    print_message(f"{found.checked:,} are right, {size_text(found.size_bytes)}")


def _cache() -> lading.LocalCache:
    """Return the user's cache. Raises FailedPrecondition where it is turned off."""
    cache = lading.LocalCache.from_environment()
    if cache is None:
        raise lading.FailedPrecondition(
            "There is no local cache: LADING_CACHE_DIR turns it off. Unset it, or name one."
        )
    return cache
