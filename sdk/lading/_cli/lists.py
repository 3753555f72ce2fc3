"""What there is: `ls`, `search`, `runs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer

import lading
from lading._cli.listing import print_all
from lading._cli.options import AsJson, Limit, means_version
from lading._cli.output import size_text, time_text
from lading._cli.session import connected

_DELETED_COLLECTION_HEADINGS = ("COLLECTION", "TYPE", "DELETED", "UNTIL")
_DELETED_VERSION_HEADINGS = ("VERSION", "TYPE", "SIZE", "CREATED", "DELETED", "UNTIL")
_VERSION_HEADINGS = ("VERSION", "ALIASES", "TYPE", "FILES", "SIZE", "CREATED", "BY")


def ls(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT|COLLECTION|REF",
            help="Nothing: projects. A name: a collection's versions, or else a project's collections (`name/`: only a "
            "project's). With :alias, :vN or @b3:hex: a version's files.",
            show_default=False,
        ),
    ] = "",
    prefix: Annotated[
        str, typer.Option(metavar="PREFIX", help="Of a version: only paths that begin with it: images/.")
    ] = "",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Of a version: every file, not one line a directory.")
    ] = False,
    deleted: Annotated[
        bool,
        typer.Option(
            "--deleted", help="What can be undeleted, and until when: collections, or a collection's versions."
        ),
    ] = False,
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """List projects, collections, versions or files.

    That is: projects, a project's collections, a collection's versions, or a version's files."""

    async def listing() -> None:
        async with connected() as client:
            if deleted and (not what or what.endswith("/")):
                collections = client.collections(what.removesuffix("/") or None, deleted=True)
                await print_all(collections, limit, as_json, _DELETED_COLLECTION_HEADINGS, _deleted_collection_row)
            elif deleted:
                versions = client.versions(what, deleted=True)
                await print_all(versions, limit, as_json, _DELETED_VERSION_HEADINGS, _deleted_version_row)
            elif not what:
                await print_all(client.projects(), limit, as_json, ("PROJECT", "CREATED"), _project_row)
            elif means_version(what):
                version = await client.version(what)
                files = version.files(prefix, fold_directories=not recursive)
                await print_all(files, limit, as_json, ("SIZE", "PATH"), _file_row)
            elif what.endswith("/") or not await _is_collection(client, what):
                collections = await _collections(client, what)
                headings = ("COLLECTION", "TYPE", "VERSIONS", "ALIASES", "UPDATED")
                await print_all(collections, limit, as_json, headings, _collection_row)
            else:
                await print_all(client.versions(what), limit, as_json, _VERSION_HEADINGS, _version_row)

    asyncio.run(listing())


def search(
    query: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY", help="Conditions, such as: type=model 'metadata.accuracy > 0.9'."),
    ] = None,
    order_by: Annotated[
        str, typer.Option(metavar="FIELD", help="created, name, size or metadata.KEY, and then ` desc` or nothing.")
    ] = "",
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Find versions of any collection.

    The newest first, if not ordered otherwise. All conditions must hold: project, name, type, tag, alias, creator, run,
    kind, created, number, size, files and metadata.KEY with =, !=, <, <=, > and >=; a word alone is part of a name.
    Quote what the shell would take.
    """

    async def listing() -> None:
        async with connected() as client:
            found = client.search(" ".join(query or ()), order_by=order_by)
            await print_all(found, limit, as_json, _VERSION_HEADINGS, _version_row)

    asyncio.run(listing())


def runs(
    project: Annotated[
        str | None, typer.Argument(metavar="PROJECT", help="Only those in this project.", show_default=False)
    ] = None,
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""

    async def listing() -> None:
        async with connected() as client:
            if project is not None and not await _is_project(client, project):
                raise lading.NotFound(f"There is no project {project!r}. `lading ls` lists the projects.")
            headings = ("RUN", "NAME", "PROJECT", "JOB", "STATE", "CREATED", "ENDED")
            await print_all(client.runs(project), limit, as_json, headings, _run_row)

    asyncio.run(listing())


async def _is_collection(client: lading.Client, name: str) -> bool:
    try:
        await client.collection(name)
    except lading.NotFound:
        return False
    return True


async def _is_project(client: lading.Client, name: str) -> bool:
    async with aclosing(client.projects()) as projects:
        async for project in projects:
            if project.name == name:
                return True
    return False


async def _collections(client: lading.Client, name: str) -> AsyncGenerator[lading.Collection, None]:
    """Return the collections of a project, which has to be there: an unknown one has none, and that is no answer."""
    project = name.removesuffix("/")
    if await _is_project(client, project):
        return client.collections(project)
    kinds = "project" if name.endswith("/") else "collection or project"
    raise lading.NotFound(f"There is no {kinds} {project!r}. `lading ls` lists the projects.")


def _deleted_collection_row(collection: lading.Collection) -> tuple[str, ...]:
    return (
        collection.reference,
        collection.type,
        time_text(collection.deleted_at),
        time_text(collection.purge_at),
    )


def _deleted_version_row(version: lading.Version) -> tuple[str, ...]:
    return (
        version.reference,
        version.type,
        size_text(version.size_bytes),
        time_text(version.created_at),
        time_text(version.deleted_at),
        time_text(version.purge_at),
    )


def _project_row(project: lading.Project) -> tuple[str, ...]:
    return project.name, time_text(project.created_at)


def _collection_row(collection: lading.Collection) -> tuple[str, ...]:
    aliases = ", ".join(f"{alias}=v{number}" for alias, number in collection.aliases.items())
    count = f"{collection.version_count:,}"
    return f"{collection.project}/{collection.name}", collection.type, count, aliases, time_text(collection.updated_at)


def _version_row(version: lading.Version) -> tuple[str, ...]:
    return (
        f"{version.project}/{version.name}",
        ", ".join(version.aliases),
        version.type,
        f"{version.file_count:,}",
        size_text(version.size_bytes),
        time_text(version.created_at),
        version.created_by,
    )


def _file_row(entry: lading.ListedEntry) -> tuple[str, ...]:
    mark = "*" if entry.executable else ""
    where = f" -> {entry.uri}" if entry.uri else ""
    return size_text(entry.size_bytes), f"{entry.path}{mark}{where}"


def _run_row(run: lading.RunInfo) -> tuple[str, ...]:
    return (
        run.run_id,
        run.name,
        run.project,
        run.job_type,
        run.state.value,
        time_text(run.created_at),
        time_text(run.ended_at),
    )
