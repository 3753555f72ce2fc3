"""A run for code without an event loop: a training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

import lading._run.run as native
from lading._artifact import Artifact
from lading._errors import InvalidArgument
from lading._model import StrPath
from lading._retry import RetryPolicy
from lading._run.fields import Fields
from lading._run.uploads import LoggedArtifact as NativeLoggedArtifact
from lading.sync._client import Client
from lading.sync._loop import run
from lading.sync._version import Version, native_of


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    job_type: str = "",
    config: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    resume: bool | None = None,
    entity: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    ca_file: StrPath | None = None,
    client_cert: StrPath | None = None,
    client_key: StrPath | None = None,
    retry: RetryPolicy | float = 120.0,
) -> Run:
    """Return a run to be entered: `with init(project="digits", job_type="train") as run`. See `lading.init`."""
    return Run(
        native.init(
            project,
            name=name,
            job_type=job_type,
            config=config,
            run_id=run_id,
            resume=resume,
            entity=entity,
            url=url,
            api_key=api_key,
            ca_file=ca_file,
            client_cert=client_cert,
            client_key=client_key,
            retry=retry,
        )
    )


class LoggedArtifact:
    """An artifact that is on its way. See `lading.LoggedArtifact`."""

    def __init__(self, logged: NativeLoggedArtifact) -> None:
        self.native = logged

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.native.name

    def done(self) -> bool:
        """Return whether it is a version by now, or failed."""
        return self.native.done()

    def wait(self) -> None:
        """Return when it is a version, or failed; raise nothing for that."""
        run(self.native.wait())

    def result(self) -> Version:
        """Return the version, when it is one. See `lading.LoggedArtifact.result`."""
        return Version.of(run(self.native.result()))

    def __repr__(self) -> str:
        return repr(self.native)


class Run:
    """One execution: what it was started with, used, measured and made. See `lading.Run`.

    Made by `init`; a context manager. Any number of threads of its process may use it. What it says and uploads goes
    through a thread in the background.

    Attributes:
        native: The same for code with an event loop. It belongs to the background loop.
        client: What the run goes through, for everything that is not about the run.
    """

    def __init__(self, of: native.Run) -> None:
        self.native = of
        self.client = Client.of(of.client)

    @property
    def config(self) -> Fields:
        """What it was started with. Setting a key sends it, a moment later."""
        return self.native.config

    @property
    def summary(self) -> Fields:
        """What it comes to. Setting a key sends it, a moment later."""
        return self.native.summary

    @property
    def id(self) -> str:
        """Names the run in its entity."""
        return self.native.id

    @property
    def name(self) -> str:
        """What people call it."""
        return self.native.name

    @property
    def job_type(self) -> str:
        """What it does."""
        return self.native.job_type

    @property
    def entity(self) -> str:
        """The tenant."""
        return self.native.entity

    @property
    def project(self) -> str:
        """Where it belongs."""
        return self.native.project

    def start(self) -> Run:
        """Create the run, or continue it. See `lading.Run.start`."""
        run(self.native.start())
        return self

    def __enter__(self) -> Run:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self.native.__aexit__(kind, error, trace))

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log what was measured. Never waits. See `lading.Run.log`."""
        # Straight from this thread: what it calls is made for that, and a training loop has no time to lose.
        self.native.log(values, step)

    def use_artifact(self, reference: str | Version, type: str | None = None) -> Version:  # noqa: A002
        """Return a version, and keep that the run used it. See `lading.Run.use_artifact`."""
        return Version.of(run(self.native.use_artifact(native_of(reference), type)))

    def log_artifact(
        self,
        artifact: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002
        aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
        ttl: timedelta | None = None,
    ) -> LoggedArtifact:
        """Begin to make an artifact a version, and return at once. See `lading.Run.log_artifact`."""
        if not isinstance(artifact, Artifact):
            # Here, since it looks at every file, which would hold up the loop.
            artifact = Artifact.of(artifact, name, type)
        elif name is not None or type is not None:
            raise InvalidArgument("An Artifact has a name and a type. Leave out the others.")
        return LoggedArtifact(run(self._log_artifact(artifact, aliases, tags, ttl)))

    def link_artifact(
        self, version: Version | LoggedArtifact | str, target: str, aliases: Sequence[str] = ()
    ) -> Version:
        """Give a version a number in a registered model, and return the link. See `lading.Run.link_artifact`."""
        source = version.native if isinstance(version, LoggedArtifact) else native_of(version)
        return Version.of(run(self.native.link_artifact(source, target, aliases)))

    def finish(self, failed: bool = False) -> None:
        """Wait for what is logged in the background, and end the run. See `lading.Run.finish`."""
        run(self.native.finish(failed))

    def __repr__(self) -> str:
        return repr(self.native)

    async def _log_artifact(
        self, artifact: Artifact, aliases: Sequence[str], tags: Sequence[str], ttl: timedelta | None
    ) -> NativeLoggedArtifact:
        return self.native.log_artifact(artifact, aliases=aliases, tags=tags, ttl=ttl)
