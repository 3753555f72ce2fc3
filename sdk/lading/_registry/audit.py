"""Whether events are those that were written: their chain, recomputed. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from lading._errors import InvalidArgument
from lading._registry.models import AuditReport
from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash

_HASH = re.compile(r"[0-9A-Fa-f]{64}")


class Head(NamedTuple):
    """The end of a chain: the number of its last event, and that event's hash. `sequence` 0 is before the first."""

    sequence: int
    hash: bytes


_START = Head(0, CHAIN_START)


def seen_head(sequence: int | None, hash_: str | None) -> Head:
    """Return the head that somebody kept, or the start of every chain where nobody did. Raises InvalidArgument."""
    if sequence is None and hash_ is None:
        return _START
    if sequence is None or hash_ is None:
        raise InvalidArgument("A head that was seen before is a sequence and a hash. Give both, or neither.")
    if sequence < 0 or _HASH.fullmatch(hash_) is None:
        raise InvalidArgument(f"{sequence}, {hash_[:80]!r} is no head: give its sequence and 64 hexadecimal digits.")
    head = Head(sequence, bytes.fromhex(hash_))
    if sequence == _START.sequence and head != _START:
        raise InvalidArgument("Before the first event the hash is 64 zeros. Give the head as it was printed.")
    return head


class Chain:
    """Takes an entity's events one after the other, from its first.

    Invariant: `_head` is the end of an unbroken chain from the start, and holds `seen` if it is not before it.
    """

    def __init__(self, seen: Head = _START) -> None:
        """`seen` is a head that was seen before, and has to be in the chain."""
        self._seen = seen
        self._head = _START
        self._reason = ""

    def accepts(self, event: ChainedEvent, told_hash: bytes) -> bool:
        """Take the next event, with the hash that the server has for it; tell whether it is right."""
        self._reason = self._reason or self._fault(event, told_hash)
        if not self._reason:
            self._head = Head(event.sequence, told_hash)
        return not self._reason

    def report(self) -> AuditReport:
        """Return what was found, when there are no more events."""
        last = self._head.sequence
        if not self._reason and last < self._seen.sequence:
            self._reason = f"the log ends with event {last}, and event {self._seen.sequence} was seen before"
        is_ok = not self._reason
        return AuditReport(
            ok=is_ok,
            events=last,
            first_bad_sequence=None if is_ok else last + 1,
            reason=self._reason,
            head_sequence=last,
            head_hash=self._head.hash.hex(),
        )

    def _fault(self, event: ChainedEvent, told_hash: bytes) -> str:
        due = self._head.sequence + 1
        if event.sequence > due:
            return f"event {due} is missing: event {event.sequence} stands in its place"
        if event.sequence < due:
            return f"event {due} is not where it belongs: one that says {event.sequence} stands in its place"
        computed = chain_hash(self._head.hash, event)
        if computed != told_hash:
            return f"event {due} is not the one that was written after event {due - 1}: its hash is of something else"
        if due == self._seen.sequence and computed != self._seen.hash:
            return f"event {due} is not the one that was seen before: it, or one before it, was written anew"
        return ""
