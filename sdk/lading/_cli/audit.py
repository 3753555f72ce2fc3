"""Whether the log of changes is what was written: `audit verify`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.exits import Exit
from lading._cli.options import AsJson, group
from lading._cli.output import count_text, print_document, print_fields, print_message
from lading._cli.session import connected

app = group("Hold the log of changes against its chain of hashes.")


@app.command()
def verify(
    from_sequence: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The head that was printed before: its sequence.")
    ] = None,
    from_hash: Annotated[str | None, typer.Option(metavar="HEX", help="And its hash.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read every event of the entity, and find one that was altered, taken out, put in or moved.

    Prints the head of the log. Keep it where the server's operator cannot reach it and give it the next time: without
    it, an end that was cut off is not found, nor a log that was written anew.
    """

    async def check() -> lading.AuditReport:
        async with connected() as client:
            return await client.verify_audit(from_sequence, from_hash)

    report = asyncio.run(check())
    if as_json:
        print_document(document(report))
    else:
        head = f"--from-sequence {report.head_sequence} --from-hash {report.head_hash}"
        print_fields({"verified": count_text(report.events, "event"), "head": head})
    if not report.ok:
        print_message(f"lading: {report.reason}. Compare with a backup of the registry's database.")
        raise typer.Exit(Exit.INTEGRITY)
