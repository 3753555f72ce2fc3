"""What goes and comes back: `delete`, `undelete`, `collection`, `project`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.exits import Exit
from lading._cli.options import AsJson, Force, group
from lading._cli.output import Table, count_text, print_document, print_line, print_message, size_text
from lading._cli.session import connected

# By the values of lading.DeleteOutcome, which `lading --help` shall not wait for.
_OUTCOMES = {
    "deleted": "deleted",
    "has_alias": "left: aliased",
    "has_link": "left: linked",
    "protected": "left: protected",
    "is_link": "left: a link",
}

Purge = Annotated[bool, typer.Option("--purge", help="For good: nothing brings it back. Asks, or needs --yes.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection: [entity/][project/]name.")]

collection = group("Delete a collection, or bring it back.")
project = group("Delete a project.")


def delete(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="Versions: [entity/][project/]name[:alias | :vN | @b3:hex]."),
    ] = None,
    query: Annotated[
        str, typer.Option("--filter", metavar="QUERY", help="Instead of REF: what matches, as in `lading search`.")
    ] = "",
    inside: Annotated[
        str, typer.Option("--in", metavar="COLLECTION", help="With or without --filter: only versions of this one.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --filter or --in: only tell. So it is without --yes.")
    ] = False,
    force: Force = False,
    purge: Purge = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete versions, by name or by a filter.

    Prints what they were. Their numbers are not given again. `lading undelete` brings them back for a week, if the
    server is not set otherwise; then they are purged, and what nothing else needs of their content is collected.

    A filter leaves what aliases or links point at, but with --force; what a protected alias points at always.
    """
    if bool(references) == bool(query or inside):
        raise lading.InvalidArgument("Give versions, or --filter or --in.")
    if references:
        if dry_run:
            raise lading.InvalidArgument("--dry-run goes with --filter or --in.")
        if purge:
            _confirm(f"Purge {', '.join(references)} for good?", yes)
        asyncio.run(_delete_named(references, force, purge, as_json))
    else:
        is_dry = dry_run or not yes
        asyncio.run(_delete_matching(query, inside, force, purge, is_dry, as_json))


def undelete(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REF", help="Deleted versions or links: [entity/][project/]name:vN or name@b3:hex."),
    ],
    with_links: Annotated[
        bool, typer.Option("--with-links", help="Bring back the links, too, that went with --force.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring deleted versions back.

    Prints what is there again. Aliases do not come back; `latest` moves if it has to. `lading ls --deleted` lists what
    can be brought back.
    """

    async def bring_back() -> None:
        async with connected() as client:
            for reference in references:
                back = await client.undelete(reference, with_links=with_links)
                if as_json:
                    print_document(document(back))
                    continue
                for version in (back.version, *back.links):
                    print_line(f"{version.reference}  {', '.join(version.aliases)}".rstrip())

    asyncio.run(bring_back())


@collection.command("delete")
def delete_collection(
    name: Name, force: Force = False, purge: Purge = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Delete a collection with all its versions.

    It is gone at once; of a large one, the versions follow in the background. `lading collection undelete` brings it
    back. Under its name a new collection goes on with its numbers.
    """
    if purge:
        _confirm(f"Purge {name} and all its versions for good?", yes)

    async def take_away() -> lading.CollectionProgress:
        async with connected() as client:
            return await client.delete_collection(name, force=force, purge=purge)

    _print_collection(asyncio.run(take_away()), as_json)


@collection.command("undelete")
def undelete_collection(name: Name, as_json: AsJson = False) -> None:
    """Bring a deleted collection back, with the versions that went with it.

    Aliases do not come back, but `latest` does."""

    async def bring_back() -> lading.CollectionProgress:
        async with connected() as client:
            return await client.undelete_collection(name)

    _print_collection(asyncio.run(bring_back()), as_json)


@project.command("delete")
def delete_project(
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="The project.")],
    force: Annotated[bool, typer.Option("--force", help="Delete its collections with it.")] = False,
    purge: Purge = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a project.

    Its runs stay, and can be read. Its collections are brought back one by one, and the project with the first.
    """
    if purge:
        _confirm(f"Purge {name} and everything in it for good?", yes)

    async def take_away() -> lading.ProjectProgress:
        async with connected() as client:
            return await client.delete_project(name, force=force, purge=purge)

    gone = asyncio.run(take_away())
    if as_json:
        print_document(document(gone))
    else:
        print_line(gone.project.name)
        _tell_of_rest(gone.done)


async def _delete_named(references: list[str], force: bool, purge: bool, as_json: bool) -> None:
    async with connected() as client:
        for reference in references:
            version = await client.delete(reference, force=force, purge=purge)
            if as_json:
                print_document(document(version))
            else:
                print_line(version.reference)


async def _delete_matching(query: str, inside: str, force: bool, purge: bool, is_dry: bool, as_json: bool) -> None:
    tally = _Tally(is_dry)
    async with connected() as client:
        found = client.delete_versions(query, inside or None, force=force, purge=purge, dry_run=is_dry)
        if as_json:
            async for one in found:
                tally.add(one)
                print_document(document(one))
        else:
            with Table("OUTCOME", "VERSION", "SIZE", "USED BY") as table:
                async for one in found:
                    table.add(tally.add(one), one.version.reference, *_details(one))
    tally.tell()


class _Tally:
    """What a filter came to."""

    def __init__(self, is_dry: bool) -> None:
        self._is_dry = is_dry
        self._gone = 0
        self._left = 0
        self._size_bytes = 0

    def add(self, one: lading.DeleteResult) -> str:
        """Count a version; return what became of it."""
        if one.outcome is not lading.DeleteOutcome.DELETED:
            self._left += 1
            return _OUTCOMES[one.outcome.value]
        self._gone += 1
        self._size_bytes += one.version.size_bytes
        return "would go" if self._is_dry else _OUTCOMES[one.outcome.value]

    def tell(self) -> None:
        """Say what it comes to."""
        what = "would be deleted" if self._is_dry else "deleted"
        print_message(
            f"{count_text(self._gone, 'version')} {what}, {self._left:,} left; purging them frees "
            f"{size_text(self._size_bytes)} at most: what other versions share stays"
        )
        if self._is_dry and self._gone:
            print_message("nothing was deleted: say --yes")


def _details(one: lading.DeleteResult) -> tuple[str, str]:
    return size_text(one.version.size_bytes), ", ".join(one.used_by)


def _print_collection(progress: lading.CollectionProgress, as_json: bool) -> None:
    if as_json:
        print_document(document(progress))
    else:
        print_line(f"{progress.collection.reference}  {count_text(progress.collection.version_count, 'version')}")
        _tell_of_rest(progress.done)


def _tell_of_rest(is_done: bool) -> None:
    if not is_done:
        print_message("the server goes on with the rest in the background")


def _confirm(question: str, yes: bool) -> None:
    """Return when a person said yes. Where nobody can be asked, --yes is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise lading.InvalidArgument("That cannot be undone. Say --yes.")
    if not typer.confirm(question, err=True):
        print_message("nothing was done")
        raise typer.Exit(Exit.FAILED)
