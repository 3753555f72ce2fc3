"""How people write what they search for, and back: `type=model tag=approved metadata.accuracy > 0.9`. Pure.

The language is specified at SearchVersionsRequest in versions.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from lading_server.common.registry_errors import InvalidQuery
from lading_server.registry.store.conditions import NEWEST_FIRST, Condition, Field, Operator, Order
from lading_server.registry.store.schema import CollectionKind

COLLECTION_FIELDS = frozenset(
    {Field.PROJECT, Field.NAME, Field.TYPE, Field.KIND, Field.TAG, Field.CREATOR, Field.CREATED}
)
"""What a collection can be searched by; a version by every field."""

# Far more than anybody writes, and few enough that no query is work for minutes. versions.proto has both numbers.
MAX_CHARACTERS = 4096
MAX_CONDITIONS = 20

_METADATA_PREFIX = f"{Field.METADATA}."
_EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
_COMPARISONS = frozenset({Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL})
_ORDERED = _EQUALITY | _COMPARISONS

_SPACES = " \t\r\n"
# The rest of C0, DEL, C1 and lone surrogates: no name has them, and PostgreSQL keeps no NUL.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD = re.compile(r'[^ \t\r\n"=!<>~]+')
_OPERATOR = re.compile(r"!=|<=|>=|=|<|>|~")
_BARE_VALUE = re.compile(r'[^ \t\r\n"=!<>~][^ \t\r\n"]*')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED = re.compile(r'\\(["\\])')
_TO_ESCAPE = re.compile(r'(["\\])')

_COUNT = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")


class _Value(NamedTuple):
    text: str
    is_quoted: bool
    position: int


class _Rule(NamedTuple):
    operators: frozenset[Operator]
    read: Callable[[_Value], str | int | float]
    write: Callable[[str | int | float], str]


def parse_query(text: str, fields: Iterable[Field] = tuple(Field)) -> tuple[Condition, ...]:
    """Return the conditions of a query, in the order in which they stand.

    Args:
        fields: Those that what is searched has.

    Raises:
        InvalidQuery: It cannot be read; the message and `position` say where.
    """
    _check_text(text)
    reader = _Reader(text, frozenset(fields))
    conditions: list[Condition] = []
    while not reader.at_end():
        if len(conditions) == MAX_CONDITIONS:
            raise _invalid(f"a query has at most {MAX_CONDITIONS} conditions; leave some out", reader.position)
        conditions.append(reader.condition())
    return tuple(conditions)


def format_query(conditions: Iterable[Condition]) -> str:
    """Return a query that `parse_query` reads as these conditions."""
    return " ".join(
        f"{_METADATA_PREFIX + one.key if one.key else one.field}{one.operator}{_RULES[one.field].write(one.value)}"
        for one in conditions
    )


def parse_order(text: str) -> Order:
    """Return what `order_by` means; empty for the newest first.

    Raises:
        InvalidQuery: It cannot be read; the message and `position` say where.
    """
    _check_text(text)
    words = text.split()
    if not words:
        return NEWEST_FIRST
    position = text.index(words[0])
    if len(words) > 2 or words[1:] not in ([], ["desc"]):
        after = position + len(words[0])
        raise _invalid("after the field of order_by comes `desc` or nothing", after)
    descending = len(words) == 2
    if words[0].startswith(_METADATA_PREFIX) and len(words[0]) > len(_METADATA_PREFIX):
        return Order(Field.METADATA, descending, words[0].removeprefix(_METADATA_PREFIX))
    if words[0] not in (Field.CREATED, Field.NAME, Field.SIZE):
        raise _invalid(f"order_by {words[0][:140]!r} is none of created, name, size and metadata.KEY", position)
    return Order(Field(words[0]), descending)


class _Reader:
    """Reads one condition after the other. Invariant: everything before `position` was read."""

    def __init__(self, text: str, fields: frozenset[Field]) -> None:
        self.position = 0
        self._text = text
        self._fields = fields

    def at_end(self) -> bool:
        """Tell whether nothing but space follows, and go past that."""
        self._skip_space()
        return self.position == len(self._text)

    def condition(self) -> Condition:
        begin = self.position
        if self._text[begin] == '"':
            return self._checked(begin, Field.NAME, Operator.HOLDS, "", self._value())
        word = _WORD.match(self._text, begin)
        if word is None:
            raise _invalid(f"a field or a word is missing before {self._text[begin]!r}", begin)
        self.position = word.end()
        self._skip_space()
        operator = _OPERATOR.match(self._text, self.position)
        if operator is None:
            self.position = word.end()
            self._expect_space()
            return self._checked(begin, Field.NAME, Operator.HOLDS, "", _Value(word[0], False, begin))
        field, key = self._field(word[0], begin)
        self.position = operator.end()
        self._skip_space()
        return self._checked(operator.start(), field, Operator(operator[0]), key, self._value())

    def _field(self, name: str, position: int) -> tuple[Field, str]:
        prefix, dot, key = name.partition(".")
        if prefix in self._fields and (prefix == Field.METADATA) == bool(dot and key):
            return Field(prefix), key
        known = ", ".join(
            f"{field}.KEY" if field is Field.METADATA else field for field in Field if field in self._fields
        )
        raise _invalid(f"{name[:140]!r} is not something to search by; there are {known}", position)

    def _value(self) -> _Value:
        begin = self.position
        quoted = _QUOTED.match(self._text, begin)
        bare = _BARE_VALUE.match(self._text, begin)
        if quoted is not None:
            self.position = quoted.end()
            value = _Value(_ESCAPED.sub(r"\1", quoted[1]), True, begin)
        elif bare is not None:
            self.position = bare.end()
            value = _Value(bare[0], False, begin)
        elif self._text.startswith('"', begin):
            raise _invalid('the quotes do not end; inside, write " as \\" and \\ as \\\\', begin)
        else:
            raise _invalid("a value is missing; put one that begins with an operator into double quotes", begin)
        self._expect_space()
        return value

    def _checked(self, at: int, field: Field, operator: Operator, key: str, value: _Value) -> Condition:
        rule = _RULES[field]
        if operator not in rule.operators:
            allowed = " ".join(one for one in Operator if one in rule.operators)
            raise _invalid(f"{field} cannot be compared with {operator}; use one of {allowed}", at)
        return Condition(field, operator, rule.read(value), key)

    def _expect_space(self) -> None:
        if self.position < len(self._text) and self._text[self.position] not in _SPACES:
            raise _invalid("a space is missing between a value and what follows", self.position)

    def _skip_space(self) -> None:
        while self.position < len(self._text) and self._text[self.position] in _SPACES:
            self.position += 1


def _check_text(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise _invalid(f"a query has at most {MAX_CHARACTERS:,} characters; shorten it", MAX_CHARACTERS)
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        raise _invalid("there is a control character, which nothing has; remove it", forbidden.start())


def _read_text(value: _Value) -> str:
    return value.text


def _read_kind(value: _Value) -> str:
    if value.text not in tuple(CollectionKind):
        raise _invalid(f"kind is {' or '.join(CollectionKind)}, not {value.text[:140]!r}", value.position)
    return value.text


def _read_count(value: _Value) -> int:
    if not _COUNT.fullmatch(value.text):
        raise _invalid(f"{value.text[:140]!r} is not a number from 0 of up to 18 digits", value.position)
    return int(value.text)


def _read_time(value: _Value) -> int:
    try:
        if _TIME.fullmatch(value.text):
            text = value.text if "T" in value.text else f"{value.text}T00:00:00Z"
            return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()) * 1000
    except ValueError:
        pass
    raise _invalid(f"{value.text[:140]!r} is no time; write 2026-01-31 or 2026-01-31T12:00:00Z", value.position)


def _read_metadata(value: _Value) -> str | float:
    if value.is_quoted or not _NUMBER.fullmatch(value.text):
        return value.text
    number = float(value.text)
    if math.isinf(number):
        raise _invalid(f"{value.text[:140]} is larger than any number; put text into double quotes", value.position)
    return number


def _write_text(value: str | int | float) -> str:
    return '"' + _TO_ESCAPE.sub(r"\\\1", str(value)) + '"'


def _write_time(value: str | int | float) -> str:
    return datetime.fromtimestamp(int(value) // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)


def _write_metadata(value: str | int | float) -> str:
    return _write_text(value) if isinstance(value, str) else repr(float(value))


_NAME = _Rule(_EQUALITY, _read_text, _write_text)
_AMOUNT = _Rule(_ORDERED, _read_count, str)
_RULES = {
    Field.PROJECT: _NAME,
    Field.NAME: _Rule(_EQUALITY | {Operator.HOLDS}, _read_text, _write_text),
    Field.TYPE: _NAME,
    Field.KIND: _Rule(_EQUALITY, _read_kind, _write_text),
    Field.TAG: _NAME,
    Field.ALIAS: _NAME,
    Field.CREATOR: _NAME,
    Field.RUN: _NAME,
    Field.CREATED: _Rule(_COMPARISONS, _read_time, _write_time),
    Field.EXPIRES: _Rule(_COMPARISONS, _read_time, _write_time),
    Field.NUMBER: _AMOUNT,
    Field.SIZE: _AMOUNT,
    Field.FILES: _AMOUNT,
    Field.METADATA: _Rule(_ORDERED, _read_metadata, _write_metadata),
}


def _invalid(message: str, position: int) -> InvalidQuery:
    return InvalidQuery(f"at character {position}: {message}", position=position)
