"""What one task of the client did to its names: what must be so, and what may be. Pure: no I/O.

A task has a collection and a registered model of its own, and asks one thing at a time. So whatever was asked and not
answered is the last thing of its names, and those are in one of two states.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ALIASES = ("best", "staging", "old")


class Kind(StrEnum):
    """What a task asks."""

    PUT = "put"
    ALIAS = "alias"
    LINK = "link"
    UNLINK = "unlink"
    DELETE = "delete"
    PURGE = "purge"
    UNDELETE = "undelete"


class State(StrEnum):
    """What became of a version or a link."""

    LIVE = "live"
    DELETED = "deleted"
    PURGED = "purged"


@dataclass(frozen=True)
class Ask:
    """One change: to the version or link `number`, or a new version of `pieces`; `aliases` go to what comes of it."""

    kind: Kind
    number: int = -1
    pieces: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "number": self.number, "pieces": self.pieces, "aliases": self.aliases}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Ask:
        return cls(Kind(value["kind"]), value["number"], tuple(value["pieces"]), tuple(value["aliases"]))


@dataclass
class Numbered:
    """A version, with its pieces; or a link, with the number of its source."""

    pieces: tuple[int, ...] = ()
    source: int = -1
    state: State = State.LIVE


@dataclass
class Names:
    """The collection and the registered model of one task. The place in a list is the number."""

    versions: list[Numbered] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    links: list[Numbered] = field(default_factory=list)
    link_aliases: dict[str, int] = field(default_factory=dict)

    def after(self, ask: Ask) -> tuple[Names, int]:
        """Return what is so when a change was made, and the number that it is answered with."""
        changed = copy.deepcopy(self)
        return changed, changed._apply(ask)

    def _apply(self, ask: Ask) -> int:
        match ask.kind:
            case Kind.PUT:
                same = [number for number in live(self.versions) if self.versions[number].pieces == ask.pieces]
                number = same[-1] if same else _append(self.versions, Numbered(pieces=ask.pieces))
                self.aliases |= dict.fromkeys(ask.aliases, number)
                return number
            case Kind.ALIAS:
                self.aliases |= dict.fromkeys(ask.aliases, ask.number)
            case Kind.LINK:
                same = [number for number in live(self.links) if self.links[number].source == ask.number]
                number = same[-1] if same else _append(self.links, Numbered(source=ask.number))
                self.link_aliases |= dict.fromkeys(ask.aliases, number)
                return number
            case Kind.UNLINK:
                _leave(self.links, self.link_aliases, ask.number, State.DELETED)
            case Kind.DELETE | Kind.PURGE:
                for number in live(self.links):
                    if self.links[number].source == ask.number:
                        _leave(self.links, self.link_aliases, number, State.DELETED)
                gone = State.PURGED if ask.kind is Kind.PURGE else State.DELETED
                _leave(self.versions, self.aliases, ask.number, gone)
            case Kind.UNDELETE:
                self.versions[ask.number].state = State.LIVE
        return ask.number

    def kept(self) -> dict[int, tuple[int, ...]]:
        """The pieces of the versions that have a pin, by number."""
        return {at: each.pieces for at, each in enumerate(self.versions) if each.state is not State.PURGED}

    def choose(self, rng: random.Random, fresh_pieces: tuple[int, ...]) -> Ask:
        """Return something that can be asked now, and will not be refused."""
        aliases = tuple(rng.sample(ALIASES, rng.choice((0, 0, 1, 2))))
        there = live(self.versions)
        if len(there) < 2 or rng.random() < 0.4:
            pieces = self.versions[rng.choice(there)].pieces if there and rng.random() < 0.1 else fresh_pieces
            return Ask(Kind.PUT, pieces=pieces, aliases=aliases)
        deleted = [at for at, each in enumerate(self.versions) if each.state is State.DELETED]
        linked = {each.source for each in self.links}
        choices = [
            (3, Ask(Kind.ALIAS, rng.choice(there), aliases=aliases or ALIASES[:1])),
            (2, Ask(Kind.LINK, rng.choice(there), aliases=aliases)),
            (3, Ask(Kind.DELETE, rng.choice(there))),
        ]
        if live(self.links):
            choices.append((1, Ask(Kind.UNLINK, rng.choice(live(self.links)))))
        if deleted:
            choices.append((2, Ask(Kind.UNDELETE, rng.choice(deleted))))
        # What a link points at, though it be a deleted one, is deleted and never purged.
        purgeable = [number for number in (*there, *deleted) if number not in linked]
        if purgeable:
            choices.append((5, Ask(Kind.PURGE, rng.choice(purgeable))))
        return rng.choices([ask for _, ask in choices], [weight for weight, _ in choices])[0]


def live(numbered: list[Numbered]) -> list[int]:
    """The numbers of what is there."""
    return [number for number, each in enumerate(numbered) if each.state is State.LIVE]


def _append(numbered: list[Numbered], one: Numbered) -> int:
    numbered.append(one)
    return len(numbered) - 1


def _leave(numbered: list[Numbered], aliases: dict[str, int], number: int, state: State) -> None:
    numbered[number].state = state
    for alias in [alias for alias, at in aliases.items() if at == number]:
        del aliases[alias]
