"""What the client was about to ask and what was acknowledged: lines of JSON, each synced when it is written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.kills.oracle import Ask, Names


@dataclass
class Known:
    """What a journal comes to.

    Attributes:
        names: What was acknowledged, by task.
        unanswered: What was asked last and not answered, by task.
        acknowledged: How many changes were.
        reads: How many versions were read back right.
        wrong: What must not have happened.
    """

    names: dict[str, Names] = field(default_factory=dict)
    unanswered: dict[str, Ask] = field(default_factory=dict)
    acknowledged: int = 0
    reads: int = 0
    wrong: list[str] = field(default_factory=list)

    def asked(self, task: str, ask: Ask) -> None:
        """A task is about to ask."""
        assert task not in self.unanswered, f"{task} asks before it is answered"
        self.names.setdefault(task, Names())
        self.unanswered[task] = ask

    def answered(self, task: str, number: int) -> None:
        """What a task asked was acknowledged."""
        ask = self.unanswered.pop(task)
        self.names[task], expected = self.names[task].after(ask)
        self.acknowledged += 1
        if number != expected:
            self.wrong.append(f"{task}: {ask} was answered with {number} instead of {expected}")

    def settled(self, task: str, *, happened: bool) -> None:
        """It was seen whether what a task asked, and was not answered, had happened."""
        ask = self.unanswered.pop(task)
        if happened:
            self.names[task], _ = self.names[task].after(ask)


class Journal:
    """The file. One process writes it at a time; one that was killed may leave half a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        lines = path.read_bytes()
        whole_bytes = lines.rfind(b"\n") + 1
        self.known = Known()
        for line in lines[:whole_bytes].splitlines():
            self._take(json.loads(line))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(self._descriptor, whole_bytes)

    def write(self, what: str, task: str, value: Any) -> None:
        """Write down what happened. Durable when this returns."""
        line: dict[str, Any] = {"what": what, "task": task, "value": value}
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        os.fdatasync(self._descriptor)
        self._take(line)

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self, line: dict[str, Any]) -> None:
        task, value = line["task"], line["value"]
        match line["what"]:
            case "ask":
                self.known.asked(task, Ask.from_json(value))
            case "answer":
                self.known.answered(task, value)
            case "settled":
                self.known.settled(task, happened=value)
            case "read":
                self.known.reads += 1
            case "wrong":
                self.known.wrong.append(f"{task}: {value}")
            case other:
                raise AssertionError(f"a line of the journal says {other!r}")
