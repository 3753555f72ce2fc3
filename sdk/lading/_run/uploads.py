"""Artifacts that are logged in the background, a few at once, those of one collection in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lading._artifact import Artifact
from lading._errors import FailedPrecondition, InvalidArgument, NotLogged, format_errors
from lading._json import plain_object
from lading._model import Reference, StrPath
from lading._registry.convert_retention import ttl_seconds
from lading._version import Version
from lading_format.names import check_settable_alias, check_tag

# One upload has as many lanes and threads as are of use; the second one fills the pauses in which the first waits for
# answers.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An artifact as it was when it was logged.

    Attributes:
        artifact: Keeps the files that it made alive.
        entries: What the tree is to hold.
        description: The card.
        metadata: As JSON can say it.
        aliases: What to point at the version.
        tags: What to tag it with.
        ttl: How long it stays.
    """

    artifact: Artifact
    entries: Mapping[str, StrPath | Reference]
    description: str
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    ttl: timedelta | None = None


def take_snapshot(
    artifact: Artifact, aliases: Sequence[str], tags: Sequence[str], ttl: timedelta | None = None
) -> Snapshot:
    """Return what is logged of an artifact now, whatever becomes of it later.

    Raises:
        InvalidArgument: An alias or a tag breaks its rules, the time to live is negative, or the metadata is not a JSON
            object.
    """
    ttl_seconds(ttl)
    for names, what in ((aliases, "aliases"), (tags, "tags")):
        if isinstance(names, str):
            raise InvalidArgument(f"{what} is a sequence: write {what}=[{names!r}].")
    with format_errors():
        checked_aliases = tuple(check_settable_alias(alias) for alias in aliases)
        checked_tags = tuple(check_tag(tag) for tag in tags)
    metadata = plain_object(artifact.metadata, "metadata")
    return Snapshot(artifact, artifact.entries(), artifact.description, metadata, checked_aliases, checked_tags, ttl)


class LoggedArtifact:
    """An artifact that is on its way. Await it for its version, as often as you like.

    Whoever awaits it sees why it failed, if it did. A failure that nobody saw ends the run's block with NotLogged.
    """

    def __init__(
        self, name: str, task: asyncio.Task[Version], on_seen: Callable[[asyncio.Task[Version]], None]
    ) -> None:
        """Made by `Run.log_artifact`.

        Args:
            name: The collection's.
            task: What makes it a version.
            on_seen: Called when somebody is told how that ended.
        """
        self._name = name
        self._task = task
        self._on_seen = on_seen

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    def done(self) -> bool:
        """Return whether it is a version by now, or failed."""
        return self._task.done()

    async def wait(self) -> None:
        """Return when it is a version, or failed; raise nothing for that.

        Raises:
            FailedPrecondition: It is not done, and goes on in another event loop, or in the process that this was
                forked from.
        """
        if self._task.done():
            return
        if self._task.get_loop() is not asyncio.get_running_loop():
            # Nothing would ever say here that it is done.
            raise FailedPrecondition(
                f"{self._name!r} is on its way in another event loop, or in the process from which this one was "
                "forked. Wait for it there."
            )
        await asyncio.wait([self._task])

    async def result(self) -> Version:
        """Return the version, when it is one. The same as awaiting this.

        Raises:
            LadingError: It could not be logged; the kinds are those of `Client.put`.
            OSError: A file cannot be read.
            NotLogged: The run's block was left with an exception before.
            FailedPrecondition: As `wait`.
        """
        # Whoever stops waiting does not stop the upload.
        await self.wait()
        self._on_seen(self._task)
        if self._task.cancelled():
            raise NotLogged(f"Its run ended before {self._name!r} was a version. Log it in another run.")
        return self._task.result()

    def __await__(self) -> Generator[Any, None, Version]:
        return self.result().__await__()

    def __repr__(self) -> str:
        return f"<lading.LoggedArtifact {self._name!r}, {'done' if self._task.done() else 'on its way'}>"


class Uploads:
    """What one run logs in the background."""

    def __init__(self, put: Callable[[Snapshot], Awaitable[Version]]) -> None:
        """Take what stores a snapshot and commits it."""
        self._put = put
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._last: dict[str, asyncio.Task[Version]] = {}
        self._running: dict[asyncio.Task[Version], str] = {}
        self._failed: dict[asyncio.Task[Version], str] = {}

    def start(self, snapshot: Snapshot) -> LoggedArtifact:
        """Begin, and return at once."""
        name = snapshot.artifact.name
        task = asyncio.create_task(self._upload(snapshot, self._last.get(name)))
        self._last[name] = task
        self._running[task] = name
        task.add_done_callback(self._settle)
        return LoggedArtifact(name, task, self._see)

    async def join(self) -> None:
        """Wait until nothing is on its way any more, whatever came of it."""
        while self._running:
            await asyncio.wait(list(self._running))

    async def cancel(self) -> None:
        """End what is on its way. What was not committed by now never is."""
        for task in self._running:
            task.cancel()
        await self.join()

    def unseen_errors(self) -> list[tuple[str, BaseException]]:
        """Return what failed without anybody knowing: names of collections, and why."""
        errors = [(name, task.exception()) for task, name in self._failed.items()]
        return [(name, error) for name, error in errors if error is not None]

    async def _upload(self, snapshot: Snapshot, before: asyncio.Task[Version] | None) -> Version:
        if before is not None:
            await asyncio.wait([before])
        async with self._room:
            return await self._put(snapshot)

    def _settle(self, task: asyncio.Task[Version]) -> None:
        """Let go of what went well: of a long run, thousands do. May be called again."""
        name = self._running.pop(task, None)
        if name is None:
            return
        if self._last.get(name) is task:
            del self._last[name]
        if not task.cancelled() and task.exception() is not None:
            self._failed[task] = name

    def _see(self, task: asyncio.Task[Version]) -> None:
        # Whoever awaits a task that has just ended may be here before its callbacks are.
        self._settle(task)
        self._failed.pop(task, None)
