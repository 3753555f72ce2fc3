"""Lineage and registry page as text."""

from __future__ import annotations

import lading
from lading._cli import graph


async def registry_page(client: lading.Client, name: str) -> str:
    """Return what is known of a registered model: its card, its versions, and the aliases that point at them."""
    collection = await client.collection(name)
    lines = [
        f"{collection.reference}",
        f"  a registered {collection.type} with {collection.version_count} version(s), "
        f"by {collection.created_by}, {collection.created_at:%Y-%m-%d %H:%M} UTC",
    ]
    async for version in client.versions(name):
        accuracy = version.metadata.get("accuracy")
        shown = f"accuracy {accuracy:.1%}" if isinstance(accuracy, float) else "no accuracy"
        lines += [
            f"  v{version.number}  {', '.join(version.aliases)}",
            f"      from {version.source}, {shown}, {version.size_bytes:,} bytes, {version.digest[:15]}…",
            f"      tags: {', '.join(version.tags) or 'none'}",
        ]
    return "\n".join(lines) + "\n"


async def lineage_page(client: lading.Client, reference: str) -> str:
    """Return where a version came from, and what became of it."""
    return graph.tree(await client.lineage(reference))
