"""The public face of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

from lading._artifact import Artifact
from lading._client import Client
from lading._errors import FailedPrecondition, InvalidArgument, format_errors
from lading._json import plain_object
from lading._model import StrPath
from lading._retry import RetryPolicy
from lading._run.fields import Fields
from lading._run.live import LiveRun
from lading._run.metrics import MetricBuffer, checked_step, numbers
from lading._run.recorder import FLUSH_POINTS
from lading._run.starting import Wish, start
from lading._run.uploads import LoggedArtifact, take_snapshot
from lading._version import Version
from lading_format.names import check_run_id


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
    """Return a run to be entered: `async with lading.init(project="digits", job_type="train") as run`.

    Opens nothing before it is entered.

    Args:
        project: Where it belongs; `LADING_PROJECT`; `default`. Made if it is not there.
        name: What people call it; need not be unique. Default: its id.
        job_type: What it does: `train`, `evaluate`.
        config: What it is started with: anything that JSON can say, arrays and scalars of NumPy and PyTorch included.
        run_id: Names it in its entity, 1 to 64 of `A-Za-z0-9._-`. Default: one that the server makes up. A run of
            this id that is there is continued, its steps counted on, and `config` merged into its own.
        resume: True when there has to be a run of this id, False when there must be none.
        entity: The tenant; `LADING_ENTITY`; the one that the key is for.
        url: `host:port`, `grpc://…` or `grpcs://…`; `LADING_URL`; 127.0.0.1:7420.
        api_key: `LADING_API_KEY`; what `lading login` keeps.
        ca_file: Whose certificates to believe, PEM; `LADING_CA_FILE`; what `lading login` keeps; whose the system
            believes.
        client_cert: A certificate to show with its chain, PEM, where the server wants one; `LADING_CLIENT_CERT`.
        client_key: Its key; `LADING_CLIENT_KEY`.
        retry: For how many seconds without progress to try calls again; or a whole policy.

    Raises:
        InvalidArgument: The address or a name is malformed, JSON cannot say the config, or `resume` has no `run_id`.
    """
    if resume is not None and run_id is None:
        raise InvalidArgument("resume says whether a run is there: say which, with run_id.")
    with format_errors():
        wish = Wish(
            name=name or "",
            job_type=job_type,
            config=plain_object(config or {}, "config"),
            run_id=check_run_id(run_id) if run_id is not None else "",
            resume=resume,
        )
    client = Client(
        url,
        api_key=api_key,
        entity=entity,
        project=project,
        ca_file=ca_file,
        client_cert=client_cert,
        client_key=client_key,
        retry=retry,
    )
    return Run(client, wish)


class Run:
    """One execution: what it was started with, used, measured and made. Made by `init`; an async context manager.

    A block that is left without an exception waits for what is logged in the background and marks the run as
    finished. One that is left with an exception cancels that and marks the run as failed. A run whose process dies
    counts as crashed after a while.

    For one event loop; `log`, `config` and `summary` may be used from any thread.

    Attributes:
        config: What it was started with. Setting a key sends it, a moment later.
        summary: What it comes to: the last value of each metric, unless a key was set otherwise. Setting a key sends
            it, too.
        client: What the run goes through, for everything that is not about the run.
    """

    def __init__(self, client: Client, wish: Wish) -> None:
        self.client = client
        self.config = Fields("config", wish.config)
        self.summary = Fields("summary")
        self._wish = wish
        self._metrics = MetricBuffer()
        self._pid = os.getpid()
        self._live: LiveRun | None = None
        self._has_ended = False

    async def start(self) -> Run:
        """Create the run, or continue it. What entering the block does; for code that has no block.

        Raises:
            NotFound: It is to be continued, and there is no such run.
            AlreadyExists: It is to be new, and there is such a run; or there is one in another project.

        Source: RegistryService.CreateRun in protos/lading_proto/registry/v1/registry.proto.
        """
        if self._live is not None or self._has_ended:
            raise FailedPrecondition("A run is started once. Make another with `init`; run_id continues this one.")
        try:
            self._live = await start(self.client, self._wish, self._metrics, self.config, self.summary)
        except BaseException:
            await self.client.close()
            raise
        return self

    async def __aenter__(self) -> Run:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_ended:
            return
        if error is None:
            await self.finish()
            return
        live, self._has_ended = self._running(), True
        try:
            await live.abandon(error)
        finally:
            await self.client.close()

    @property
    def id(self) -> str:
        """Names the run in its entity."""
        return self._started().info.run_id

    @property
    def name(self) -> str:
        """What people call it."""
        return self._started().info.name

    @property
    def job_type(self) -> str:
        """What it does."""
        return self._started().info.job_type

    @property
    def entity(self) -> str:
        """The tenant."""
        return self._started().info.entity

    @property
    def project(self) -> str:
        """Where it belongs."""
        return self._started().info.project

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log what was measured. Never waits, and never fails for the network: it is sent in the background.

        Sent about once a second, and at the end of the block. Where the server is away for so long that too much
        waits, every second call is dropped of those that wait.

        Args:
            values: Numbers by key, 1 to 256 printable characters. Scalars of NumPy and PyTorch, NaN and infinities
                are numbers too.
            step: When, in the run's own count, from 0. Default: one more than the largest so far. A value of the same
                key and step as one before takes its place.

        Raises:
            InvalidArgument: A key or a step is malformed, or a value is no number. Nothing was logged.
            FailedPrecondition: The run was not started or has ended, or belongs to the process that this was forked
                from.

        Source: RegistryService.LogMetrics in protos/lading_proto/registry/v1/registry.proto.
        """
        live = self._running()
        measured = numbers(values)
        waiting_points = self._metrics.add(measured, None if step is None else checked_step(step))
        self.summary.show(measured)
        if waiting_points >= FLUSH_POINTS:
            live.recorder.wake()

    async def use_artifact(self, reference: str | Version, type: str | None = None) -> Version:  # noqa: A002
        """Return a version, and keep that the run used it.

        Args:
            reference: `[project/]name`, and then nothing (meaning `:latest`), `:alias`, `:vN` or `@b3:<hex>`; or a
                version.
            type: What its type has to be; None for any.

        Raises:
            NotFound: There is no such collection, version or alias.
            FailedPrecondition: It is of another type.
            InvalidArgument: The reference is malformed, or of another entity.

        Source: RegistryService.UseVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        return await self._running().calls.use(reference, type or "")

    def log_artifact(
        self,
        artifact: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002
        aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
        ttl: timedelta | None = None,
    ) -> LoggedArtifact:
        """Begin to make an artifact a version of its collection, and return at once: it goes on in the background.

        Files are read in the background. One that is changed before it was read is FileChanged, so leave them alone
        until it is done. Artifacts of one collection become versions in the order of these calls.

        Args:
            artifact: What to log; or a file, or a directory.
            name: Of a path, the collection. Default: the path's last part.
            type: Of a path, the collection's type. Default: that of the collection, which is there then.
            aliases: Aliases to point at the version, wherever they pointed. `latest` moves by itself.
            tags: Tags of the version.
            ttl: How long the version stays, as in `Client.commit`: None for what the rule of the collection says.

        Returns:
            What can be awaited for the Version. What nobody awaits and fails ends the block with NotLogged.

        Raises:
            InvalidArgument: A name, alias or tag breaks its rules, there is no such file, or an Artifact came with a
                name or type.
            UnsafePath: The directory holds a link, a pipe, a socket or a device.

        Source: IngestService.PutTree and RegistryService.CommitVersion in protos/lading_proto.
        """
        live = self._running()
        if not isinstance(artifact, Artifact):
            artifact = Artifact.of(artifact, name, type)
        elif name is not None or type is not None:
            raise InvalidArgument("An Artifact has a name and a type. Leave out the others.")
        return live.uploads.start(take_snapshot(artifact, aliases, tags, ttl))

    async def link_artifact(
        self, version: Version | LoggedArtifact | str, target: str, aliases: Sequence[str] = ()
    ) -> Version:
        """Give a version a number in a registered model, and return the link. The run is kept as who did it.

        Args:
            version: What to link; one that is on its way is waited for.
            target: `[entity/]model-registry/Name`, or its name alone. Made if it is not there.
            aliases: Aliases of the registered model to point at the link: `staging`.

        Raises:
            NotFound: There is no such version.
            FailedPrecondition: The registered model has another type than the version.
            LadingError, OSError: The artifact could not be logged.

        Source: RegistryService.UpdateRefs in protos/lading_proto/registry/v1/registry.proto.
        """
        live = self._running()
        source = await version if isinstance(version, LoggedArtifact) else version
        return await self.client.link(source, target, aliases, live.info.run_id)

    async def finish(self, failed: bool = False) -> None:
        """Wait for what is logged in the background, and end the run. What leaving the block does; once.

        Args:
            failed: Whether to mark it as failed.

        Raises:
            NotLogged: Something did not arrive; all of it is named. The run is marked as failed.

        Source: RegistryService.FinishRun in protos/lading_proto/registry/v1/registry.proto.
        """
        if self._has_ended:
            return
        live, self._has_ended = self._running(), True
        try:
            await live.finish(failed=failed)
        finally:
            await self.client.close()

    def __repr__(self) -> str:
        return f"<lading.Run {self._live.info.run_id!r}>" if self._live else "<lading.Run, not started>"

    def _started(self) -> LiveRun:
        if self._live is None:
            raise FailedPrecondition("The run is not started. Enter it: `async with lading.init(…) as run`.")
        return self._live

    def _running(self) -> LiveRun:
        live = self._started()
        if self._has_ended:
            raise FailedPrecondition(f"Run {live.info.run_id} has ended. Make another with `init`.")
        if os.getpid() != self._pid:
            raise FailedPrecondition(
                f"Run {live.info.run_id} belongs to process {self._pid}, from which this one was forked. Log from "
                "there."
            )
        return live
