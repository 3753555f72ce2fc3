"""Checks of an ingest without a server, and damage done to it by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from lading_server.ingest.domain.check import CheckRequest
from lading_server.ingest.domain.check_findings import Finding, FindingKind, HurtVersion, Level, Progress, Summary
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.schema import packs
from lading_server.ingest.packs.format import HEADER_BYTES, header_seed
from lading_server.ingest.packs.storage import PackClass
from lading_server.ingest.packs.writer import Location


@dataclass
class Checked:
    """What a check told."""

    findings: list[Finding] = field(default_factory=list)
    hurt: list[HurtVersion] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)

    @property
    def kinds(self) -> set[FindingKind]:
        return {finding.kind for finding in self.findings}

    @property
    def told(self) -> list[str]:
        """What to show when a test fails."""
        return [finding.message for finding in self.findings]


async def checked(
    ingest: Ingest, level: Level = Level.DIGESTS, *, restart: bool = True, max_bytes: int = 0, only: str = ""
) -> Checked:
    """Check, and return all that was told."""
    result = Checked()
    async for event in ingest.checker.run(CheckRequest(level, restart, only, max_bytes)):
        if isinstance(event, Finding):
            result.findings.append(event)
        elif isinstance(event, HurtVersion):
            result.hurt.append(event)
        elif isinstance(event, Progress):
            result.progress.append(event)
        else:
            result.summary = event
    return result


async def seal(ingest: Ingest) -> None:
    """Seal the packs that wait for the next stream."""
    await ingest.pool.close()


def pack_path(root: Path, pack: UUID) -> Path:
    """The file of a pack of `opened_ingest`."""
    return root / "packs" / "packs" / pack.hex[-2:] / f"{pack.hex}.pack"


def flip(path: Path, offset: int) -> None:
    """Change a byte, as a disk would."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def forge(path: Path, place: Location, change: Callable[[bytearray], None]) -> None:
    """Change a payload so that every checksum of its pack is right again, and only the digest is not."""
    data = bytearray(path.read_bytes())
    begin = place.offset + HEADER_BYTES
    payload = bytearray(data[begin : begin + place.stored_bytes])
    change(payload)
    data[begin : begin + place.stored_bytes] = payload
    # The record's header: the payload's XXH3-64 is at 16, and its own checksum ends it.
    data[place.offset + 16 : place.offset + 24] = xxh3_64_intdigest(payload).to_bytes(8, "little")
    header = bytes(data[place.offset : begin - 4])
    own = xxh3_64_intdigest(header, header_seed(place.pack)) & 0xFFFFFFFF
    data[begin - 4 : begin] = own.to_bytes(4, "little")
    # The trailer: the XXH3-128 of all before it is at 32, and its own checksum ends it.
    trailer = data[-HEADER_BYTES:]
    trailer[32:48] = xxh3_128_digest(bytes(data[:-HEADER_BYTES]))
    trailer[-8:] = xxh3_64_intdigest(bytes(trailer[:-8])).to_bytes(8, "little")
    data[-HEADER_BYTES:] = trailer
    path.write_bytes(data)


async def packs_of_class(ingest: Ingest, pack_class: PackClass) -> list[UUID]:
    """The ids of all packs of a class."""
    async with ingest.index.database.read() as connection:
        query = sa.select(packs.c.id).where(packs.c.pack_class == int(pack_class)).order_by(packs.c.id)
        return [UUID(bytes=pack) for pack in (await connection.scalars(query)).all()]


async def execute(ingest: Ingest, *statements: sa.Executable) -> None:
    """Change rows, as a person with a shell would."""
    async with ingest.index.database.write() as connection:
        for statement in statements:
            await connection.execute(statement)


async def place_of(ingest: Ingest, digest: bytes, entity: str = "acme") -> Location:
    """Where a chunk or page lies."""
    return (await ingest.index.chunks.locate(entity, [digest]))[digest]


def offsets(findings: Sequence[Finding]) -> set[int | None]:
    return {finding.offset for finding in findings}
