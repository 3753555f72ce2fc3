"""The index of the packs, made anew or brought up to them. Alone on the directory; no server starts before its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from lading_server.common.settings import Settings
from lading_server.common.unfinished import finish, read_unfinished, write_unfinished
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.rebuild.rebuild import Rebuild
from lading_server.ingest.rebuild.report import Report
from lading_server.maintenance.aside import is_there, move_aside
from lading_server.maintenance.halves import INGEST, MaintenanceRefused, Places

COMMAND = "lading rebuild-index"


async def rebuild_index(
    places: Places,
    *,
    catch_up: bool = False,
    force: bool = False,
    trusts_recipes: bool = False,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Make ingest's database from the packs, or finish what an earlier call began.

    Args:
        catch_up: Keep the database that is there, and add what it does not know.
        force: Keep it under another name, and make another.
        trusts_recipes: Do not read files of many chunks once more for their digest.

    Raises:
        MaintenanceRefused: There is a database, and nothing was said of it; or other work is unfinished.
        StoreLocked: A server has the directory.
        DatabaseUnavailable, ReasonedError, OSError: To be done again when that is mended.
    """
    with closing(LocalPackStorage(places.data)) as storage:
        note = read_unfinished(places.data)
        if note and note["command"] != COMMAND:
            raise MaintenanceRefused(f"`{note['command']}` was interrupted; run that again first, to its end")
        if not note:
            if not (catch_up or force) and await is_there(places, INGEST):
                raise MaintenanceRefused(
                    "there is a database; --catch-up adds what it does not know of the packs, and --force keeps it "
                    "under another name and makes another"
                )
            note = {"command": COMMAND, "stage": "aside" if force else "packs"}
            write_unfinished(places.data, note)
        if note["stage"] == "aside":
            await move_aside(places, INGEST)
            write_unfinished(places.data, {"command": COMMAND, "stage": "packs"})
        report = await bring_up_to_packs(places, storage, trusts_recipes=trusts_recipes, on_progress=on_progress)
        finish(places.data)
        return report


async def bring_up_to_packs(
    places: Places,
    storage: PackStorage,
    *,
    trusts_recipes: bool = False,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Make the index know all of the packs of a storage that is this process's alone."""
    index = await ContentIndex.open(places.url(INGEST))
    workers = Workers(Settings().threads)
    try:
        rebuild = Rebuild(index, storage, workers, trusts_recipes=trusts_recipes, on_progress=on_progress)
        return await rebuild.run()
    finally:
        workers.close()
        await index.close()
