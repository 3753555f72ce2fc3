"""What is searched for and how it is sorted, as plain values. Knows neither how people write it nor SQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Field(StrEnum):
    """What a condition is about, as people write it."""

    PROJECT = "project"
    NAME = "name"
    TYPE = "type"
    KIND = "kind"
    TAG = "tag"
    ALIAS = "alias"
    CREATOR = "creator"
    RUN = "run"
    CREATED = "created"
    EXPIRES = "expires"
    NUMBER = "number"
    SIZE = "size"
    FILES = "files"
    METADATA = "metadata"


class Operator(StrEnum):
    """How a field is compared, as people write it."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HOLDS = "~"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold.

    Attributes:
        value: Text; an integer for numbers and sizes, and for times in milliseconds since 1970; a float for what is a
            number in metadata.
        key: Where it is in the metadata, with dots for what is nested; empty for every other field.
    """

    field: Field
    operator: Operator
    value: str | int | float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What versions are sorted by: `created`, `name`, `size` or `metadata`, the last with a key."""

    field: Field
    descending: bool = False
    key: str = ""


NEWEST_FIRST = Order(Field.CREATED, descending=True)
