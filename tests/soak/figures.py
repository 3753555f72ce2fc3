"""What came of a soak: counts, percentiles, and a page of JSON. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, NamedTuple

import lading
from tests.soak.calls import MEANS_GONE, Call, Kind

_TIMED = (Kind.PUT, Kind.GET)
_DELETING = frozenset({Kind.DELETE, Kind.PURGE})


class Collection(NamedTuple):
    """One run of the collector."""

    began_at: float
    ended_at: float
    report: lading.GarbageReport


@dataclass
class Figures:
    """Counts of everything, while it comes."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    undocumented: list[Call] = field(default_factory=list)
    collections: list[Collection] = field(default_factory=list)
    # By version: when somebody first asked to delete it, when a put of it was last answered.
    deleted_at: dict[str, float] = field(default_factory=dict)
    put_at: dict[str, float] = field(default_factory=dict)
    _gone: list[Call] = field(default_factory=list)
    _timed: list[Call] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """Count a call."""
        self.done[call.kind.value] += 1
        if call.refused:
            self.refused[f"{call.kind.value}: {call.refused}"] += 1
        if not call.is_documented:
            self.undocumented.append(call)
        if call.refused and call.reason in MEANS_GONE:
            self._gone.append(call)
        if call.kind in _DELETING:
            self.deleted_at.setdefault(call.reference, call.began_at)
            self.deleted_at[call.reference] = min(self.deleted_at[call.reference], call.began_at)
        if call.kind is Kind.PUT and not call.refused:
            self.put_at[call.reference] = call.ended_at
        if call.kind in _TIMED and not call.refused:
            self._timed.append(call)

    @property
    def operations(self) -> int:
        return sum(self.done.values())

    def wrongly_gone(self) -> list[Call]:
        """Calls that did not find a version that nobody had asked to delete. For when all calls are counted."""
        return [
            call
            for call in self._gone
            # Links go with their sources.
            if call.kind is not Kind.UNLINK and self.deleted_at.get(call.reference, call.ended_at + 1) > call.ended_at
        ]

    def must_be_there(self) -> set[str]:
        """Versions of which a put was acknowledged, and that nobody asked to delete."""
        return self.put_at.keys() - self.deleted_at.keys()

    def to_json(self) -> dict[str, Any]:
        """Everything, in numbers."""
        reports = [each.report for each in self.collections]
        return {
            "operations": self.operations,
            "operations_by_kind": dict(sorted(self.done.items())),
            "documented_refusals": sum(self.refused.values()) - len(self.undocumented),
            "refusals_by_reason": dict(sorted(self.refused.items())),
            "failures": len(self.undocumented) + len(self.wrongly_gone()),
            "collections": len(reports),
            "collection_seconds": round(sum(each.ended_at - each.began_at for each in self.collections), 1),
            "bytes_freed": sum(report.bytes_freed for report in reports),
            "packs_deleted": sum(report.packs_deleted for report in reports),
            "packs_compacted": sum(report.packs_compacted for report in reports),
            "bytes_compacted": sum(report.bytes_compacted for report in reports),
            "trees_deleted": sum(report.trees_deleted for report in reports),
            "blobs_deleted": sum(report.blobs_deleted for report in reports),
            "latency_ms": {kind.value: self._latencies(kind) for kind in _TIMED},
        }

    def _latencies(self, kind: Kind) -> dict[str, dict[str, float]]:
        during: list[float] = []
        between: list[float] = []
        for call in self._timed:
            if call.kind is kind:
                (during if self._is_collecting(call) else between).append(1000 * (call.ended_at - call.began_at))
        return {"while collecting": _percentiles(during), "between": _percentiles(between)}

    def _is_collecting(self, call: Call) -> bool:
        """Whether a collection went on while the call did. They come one after the other."""
        first = bisect_right(self.collections, call.began_at, key=lambda each: each.ended_at)
        return first < len(self.collections) and self.collections[first].began_at < call.ended_at


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {"calls": len(values)}
    cut = quantiles(values, n=100)
    named = {"p50": cut[49], "p90": cut[89], "p99": cut[98], "longest": max(values)}
    return {"calls": len(values)} | {name: round(value, 1) for name, value in named.items()}


def shown(calls: Iterable[Call], most: int = 20) -> str:
    """Calls in words, for whoever looks for what failed."""
    return "\n".join(
        f"{call.kind.value} {call.reference}: {call.refused}: {call.message}" for call in list(calls)[:most]
    )
