"""Blobs of many chunks: recipes put together from their parts, and checked against the chunks that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from lading_server.common.errors import CorruptRecord, SizeMismatch
from lading_server.ingest.domain.recipes import REF_BYTES, BlobHasher, ChunkSpan, RecipePart, RecipeSlice, SpanReader
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import unpack_refs
from lading_server.ingest.index.schema import ContentState, blobs, recipe_parts
from lading_server.ingest.index.statements import GroupStatements
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.rebuild.report import Report

# References that are looked up, and written, together.
_BATCH_REFS = 8192


@dataclass
class Recipe:
    """A blob's recipe so far: parts that follow each other."""

    blob_digest: bytes
    size_bytes: int
    parts: list[RecipeSlice] = field(default_factory=list)
    end_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every part is there."""
        return self.end_bytes == self.size_bytes

    @property
    def chunk_count(self) -> int:
        """How many chunks the blob has."""
        return sum(len(part.refs) for part in self.parts) // REF_BYTES

    def spans(self) -> Iterable[ChunkSpan]:
        """Yield the chunks in order."""
        for part in self.parts:
            for ref in unpack_refs(part.start_bytes, part.refs):
                yield ChunkSpan(ref.digest, ref.size_bytes)


class RecipeAssembly:
    """Puts the parts of one pack together. Those of a blob follow each other, for they were appended at once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: Recipe | None = None

    def take(self, part: RecipePart) -> Recipe | None:
        """Take the next part; return the recipe that it completes."""
        recipe = self._open
        if recipe is None or recipe.blob_digest != part.blob_digest or recipe.end_bytes != part.slice.start_bytes:
            self.finish()
            if part.slice.start_bytes:
                self._report.damaged_blobs.add(f"b3:{part.blob_digest.hex()}: a part of its recipe is lost")
                return None
            recipe = self._open = Recipe(part.blob_digest, part.size_bytes)
        recipe.parts.append(part.slice)
        recipe.end_bytes += sum(ref.size_bytes for ref in unpack_refs(0, part.slice.refs))
        if not recipe.is_whole:
            return None
        self._open = None
        return recipe

    def finish(self) -> None:
        """Give up what is not whole."""
        if self._open is not None:
            self._report.damaged_blobs.add(f"b3:{self._open.blob_digest.hex()}: a part of its recipe is lost")
            self._open = None


class RecipeRows:
    """Writes blobs of many chunks."""

    def __init__(self, index: ContentIndex, spans: SpanReader, report: Report, *, trusts: bool) -> None:
        """`trusts`: whether a blob is believed to have its digest, so that its bytes need not be read once more."""
        self._index = index
        self._spans = spans
        self._report = report
        self._trusts = trusts
        self._entities = Entities(index.database)
        self._statements = GroupStatements(index.database)

    async def write(self, entity: str, recipes: Sequence[Recipe]) -> None:
        """Write blobs of an entity, in the order of their records: of two recipes for one blob the last one counts.

        One that lacks a chunk becomes a damaged blob, unless there is a recipe that lacks none.
        """
        batch: dict[bytes, Recipe] = {}
        refs = 0
        for recipe in recipes:
            batch[recipe.blob_digest] = recipe
            refs += recipe.chunk_count
            if refs >= _BATCH_REFS:
                await self._write(entity, list(batch.values()))
                batch, refs = {}, 0
        if batch:
            await self._write(entity, list(batch.values()))

    async def _write(self, entity: str, recipes: Sequence[Recipe]) -> None:
        entity_id = await self._entities.ensure(entity)
        whole: list[Recipe] = []
        lacking: list[Recipe] = []
        for recipe in recipes:
            try:
                (whole if await self._verify(entity, recipe) else lacking).append(recipe)
            except (SizeMismatch, CorruptRecord) as error:
                self._report.damaged_blobs.add(f"b3:{recipe.blob_digest.hex()}: {error.message}")
        await self._insert(entity_id, whole, ContentState.LIVE)
        if lacking:
            present = await self._index.blobs.stat(entity, [recipe.blob_digest for recipe in lacking])
            # The judgement names them.
            await self._insert(
                entity_id, [one for one in lacking if one.blob_digest not in present], ContentState.DAMAGED
            )

    async def _verify(self, entity: str, recipe: Recipe) -> bool:
        """Tell whether every chunk is there. Raises SizeMismatch, CorruptRecord when they do not make the blob."""
        hasher = BlobHasher()
        is_whole = True
        for part in recipe.parts:
            spans = [ChunkSpan(ref.digest, ref.size_bytes) for ref in unpack_refs(0, part.refs)]
            located = await self._spans.locate(entity, spans)
            is_whole = is_whole and all(span.digest in located for span in spans)
            if is_whole and not self._trusts:
                await self._spans.hash_into(entity, hasher, spans, located)
        if is_whole and not self._trusts and hasher.digest() != recipe.blob_digest:
            raise CorruptRecord("the chunks of its recipe do not have its digest")
        return is_whole

    async def _insert(self, entity_id: int, recipes: Sequence[Recipe], state: ContentState) -> None:
        if not recipes:
            return
        recipes = sorted(recipes, key=lambda recipe: recipe.blob_digest)
        rows = [
            {
                "entity_id": entity_id,
                "digest": recipe.blob_digest,
                "size_bytes": recipe.size_bytes,
                "chunk_count": recipe.chunk_count,
                "state": state.value,
                "generation": 0,
            }
            for recipe in recipes
        ]
        new = self._index.database.insert(blobs)
        changes = {name: new.excluded[name] for name in ("size_bytes", "chunk_count", "state")}
        upsert = new.on_conflict_do_update(
            index_elements=["entity_id", "digest"],
            set_={**changes, "generation": blobs.c.generation + 1, "condemned_at_ms": None},
        )
        mine = sa.and_(recipe_parts.c.entity_id == entity_id, recipe_parts.c.blob_digest == sa.bindparam("blob"))
        parts: list[tuple[object, ...]] = [
            (entity_id, recipe.blob_digest, part.start_bytes, part.refs) for recipe in recipes for part in recipe.parts
        ]
        async with self._index.database.write() as connection:
            await connection.execute(upsert, rows)
            await connection.execute(
                sa.delete(recipe_parts).where(mine), [{"blob": one.blob_digest} for one in recipes]
            )
            await self._statements.recipe_parts.run(connection, parts)
        self._report.blobs += len(rows)
