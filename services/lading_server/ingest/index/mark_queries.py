"""The queries of `marks`, made once: to make a statement costs more than to run it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ContentState,
    PackState,
    PinState,
    UploadState,
    blobs,
    chunks,
    doomed,
    packs,
    pins,
    recipe_parts,
    session_packs,
    sessions,
    tree_pages,
    trees,
    upload_chunks,
    uploads,
)
from lading_server.ingest.index.sql import ByteParameter

# Rows of recipes read at once: up to 2.3 MiB.
PARTS = 64
_KEPT_STATES = [ContentState.LIVE.value, ContentState.DAMAGED.value]
_ONE: sa.ColumnElement[int] = sa.literal_column("1")


class DoomedKind(StrEnum):
    """What a row of `doomed` is of."""

    TREE = "tree"
    BLOB = "blob"


def is_kept(table: sa.Table, kind: DoomedKind) -> sa.ColumnElement[bool]:
    """The condition under which a blob or tree keeps what it is made of: it is not condemned, nor in a rehearsal."""
    is_doomed = sa.select(_ONE).where(
        doomed.c.entity_id == table.c.entity_id,
        doomed.c.digest == table.c.digest,
        doomed.c.kind == sa.literal_column(f"'{kind.value}'"),
    )
    return sa.and_(table.c.state.in_(_KEPT_STATES), ~is_doomed.correlate(table).exists())


class MarkQueries:
    """What a collector asks about one entity."""

    def __init__(self, dialect: str) -> None:
        mine: sa.BindParameter[int] = sa.bindparam("entity")
        after: sa.BindParameter[Any] = sa.bindparam("after")
        most: sa.BindParameter[int] = sa.bindparam("most")
        wanted = self.wanted = ByteParameter(dialect, DIGEST_BYTES)
        tree_is_kept, blob_is_kept = is_kept(trees, DoomedKind.TREE), is_kept(blobs, DoomedKind.BLOB)
        is_leased = sa.and_(
            sessions.c.entity_id == mine, sessions.c.expires_at_ms > sa.bindparam("now_ms", type_=sa.BigInteger)
        )
        self.trees = (
            sa.select(trees.c.digest, trees.c.generation, trees.c.created_at_ms)
            .where(trees.c.entity_id == mine, trees.c.digest > after, tree_is_kept)
            .order_by(trees.c.digest)
            .limit(most)
        )
        # Not by a join: SQLite would walk all pins, or all pages, and the wanted trees for each of them.
        these = sa.select(wanted.value).select_from(wanted.table)
        self.pinned = (
            sa.select(pins.c.tree_digest)
            .distinct()
            .where(pins.c.entity_id == mine, pins.c.tree_digest.in_(these), pins.c.state == PinState.HELD.value)
        )
        page_is_chunk = sa.and_(chunks.c.entity_id == mine, chunks.c.digest == tree_pages.c.page_digest)
        self.leased_trees = (
            sa.select(tree_pages.c.tree_digest)
            .distinct()
            .join_from(tree_pages, chunks, page_is_chunk)
            .join(session_packs, session_packs.c.pack_id == chunks.c.pack_id)
            .join(sessions, sessions.c.id == session_packs.c.session_id)
            .where(tree_pages.c.entity_id == mine, tree_pages.c.tree_digest.in_(these), is_leased)
        )
        tree_of_page = sa.and_(trees.c.entity_id == tree_pages.c.entity_id, trees.c.digest == tree_pages.c.tree_digest)
        self.pages = (
            sa.select(tree_pages.c.page_digest)
            .distinct()
            .join_from(tree_pages, trees, tree_of_page)
            .where(tree_pages.c.entity_id == mine, tree_pages.c.page_digest > after, tree_is_kept)
            .order_by(tree_pages.c.page_digest)
            .limit(most)
        )
        self.tree_pages_of = (
            sa.select(
                trees.c.digest,
                trees.c.file_count,
                trees.c.reference_count,
                trees.c.size_bytes,
                tree_pages.c.first_path,
                tree_pages.c.page_digest,
                tree_pages.c.entry_count,
            )
            .outerjoin_from(trees, tree_pages, tree_of_page)
            .where(trees.c.entity_id == mine, trees.c.digest.in_(these), tree_is_kept)
            .order_by(trees.c.digest, tree_pages.c.seq)
            .execution_options(yield_per=PARTS)
        )
        self.blobs = (
            sa.select(blobs.c.digest, blobs.c.generation)
            .where(blobs.c.entity_id == mine, blobs.c.digest > after, blob_is_kept)
            .order_by(blobs.c.digest)
            .limit(most)
        )
        self.uploaded = (
            sa.select(uploads.c.upload_id, uploads.c.digest)
            .where(
                uploads.c.entity_id == mine, uploads.c.upload_id > after, uploads.c.state == UploadState.COMPLETE.value
            )
            .order_by(uploads.c.upload_id)
            .limit(most)
        )
        self.packs = (
            sa.select(packs.c.id, packs.c.pack_class, packs.c.state, packs.c.generation, packs.c.durable_bytes)
            .where(packs.c.entity_id == mine, packs.c.state.in_([PackState.SEALED.value, PackState.DAMAGED.value]))
            .order_by(packs.c.id)
        )
        self.held_packs = (
            sa.select(session_packs.c.pack_id)
            .distinct()
            .join_from(session_packs, sessions, sessions.c.id == session_packs.c.session_id)
            .where(is_leased)
        )
        self.held_chunks = (
            sa.select(chunks.c.digest)
            .distinct()
            .join_from(chunks, session_packs, session_packs.c.pack_id == chunks.c.pack_id)
            .join(sessions, sessions.c.id == session_packs.c.session_id)
            .where(chunks.c.entity_id == mine, chunks.c.digest.in_(these), is_leased)
        )
        # Not by the kind of the record: a file may have the bytes of a page, and they are stored once.
        blob_needs_it = sa.select(_ONE).where(
            blobs.c.entity_id == chunks.c.entity_id,
            blobs.c.digest == chunks.c.digest,
            blobs.c.chunk_count == 1,
            blob_is_kept,
        )
        tree_needs_it = (
            sa.select(_ONE)
            .join_from(tree_pages, trees, tree_of_page)
            .where(
                tree_pages.c.entity_id == chunks.c.entity_id, tree_pages.c.page_digest == chunks.c.digest, tree_is_kept
            )
        )
        is_needed = sa.or_(blob_needs_it.correlate(chunks).exists(), tree_needs_it.correlate(chunks).exists())
        marked = sa.select(
            chunks.c.digest,
            chunks.c.kind,
            chunks.c.pack_id,
            chunks.c.record_offset,
            chunks.c.stored_bytes,
            chunks.c.raw_bytes,
            is_needed,
        ).where(chunks.c.entity_id == mine)
        self.chunks = marked.where(chunks.c.digest > after).order_by(chunks.c.digest).limit(most)
        self.chunks_in = marked.where(chunks.c.pack_id == sa.bindparam("pack")).order_by(chunks.c.record_offset)
        part = (recipe_parts.c.blob_digest, recipe_parts.c.start_bytes, recipe_parts.c.refs, blobs.c.size_bytes)
        blob_of_part = sa.and_(
            blobs.c.entity_id == recipe_parts.c.entity_id, blobs.c.digest == recipe_parts.c.blob_digest
        )
        # Rows that a blob of one chunk left behind when it had more are not its recipe any more.
        has_recipe = sa.and_(recipe_parts.c.entity_id == mine, blobs.c.chunk_count > 1, blob_is_kept)
        place = sa.tuple_(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
        self.parts = (
            sa.select(*part)
            .join_from(recipe_parts, blobs, blob_of_part)
            .where(has_recipe, place > sa.tuple_(_bytes("blob"), _integer("start")))
            .order_by(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
            .limit(most)
        )
        self.parts_of = (
            sa.select(*part)
            .select_from(wanted.table)
            .join(blobs, sa.and_(blobs.c.entity_id == mine, blobs.c.digest == wanted.value))
            .join(recipe_parts, blob_of_part)
            .where(has_recipe)
            .execution_options(yield_per=PARTS)
        )
        its_upload = sa.and_(
            uploads.c.entity_id == upload_chunks.c.entity_id, uploads.c.upload_id == upload_chunks.c.upload_id
        )
        upload_place = sa.tuple_(upload_chunks.c.upload_id, upload_chunks.c.start_bytes)
        self.upload_refs = (
            sa.select(upload_chunks.c.upload_id, upload_chunks.c.start_bytes, upload_chunks.c.refs)
            .join_from(upload_chunks, uploads, its_upload)
            .where(upload_chunks.c.entity_id == mine, uploads.c.state == UploadState.OPEN.value)
            .where(upload_place > sa.tuple_(sa.bindparam("upload", type_=sa.Text), _integer("start")))
            .order_by(upload_chunks.c.upload_id, upload_chunks.c.start_bytes)
            .limit(most)
        )


def _bytes(name: str) -> sa.BindParameter[bytes]:
    return sa.bindparam(name, type_=sa.LargeBinary)


def _integer(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)
