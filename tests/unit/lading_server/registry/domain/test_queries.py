"""How people write what they search for."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lading_server.common.registry_errors import InvalidQuery
from lading_server.registry.domain.queries import (
    COLLECTION_FIELDS,
    MAX_CHARACTERS,
    MAX_CONDITIONS,
    format_query,
    parse_order,
    parse_query,
)
from lading_server.registry.store.conditions import NEWEST_FIRST, Condition, Field, Operator, Order

NAMES = (Field.PROJECT, Field.NAME, Field.TYPE, Field.TAG, Field.ALIAS, Field.CREATOR, Field.RUN)
AMOUNTS = (Field.NUMBER, Field.SIZE, Field.FILES)
EQUALITY = (Operator.EQUAL, Operator.NOT_EQUAL)
COMPARISONS = (Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL)
ORDERED = (*EQUALITY, *COMPARISONS)

# What the language is made of, and what it is not.
SUSPICIOUS = st.text(st.sampled_from('ab.~=!<>"\\ \t\n\0\x1f\x85é𝄞\ud8007-:TZtype metadata.'), max_size=40)

plain = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
keys = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=' "=!<>~'), min_size=1, max_size=12)
counts = st.integers(0, 10**18 - 1)
# The second of every day that a query can name.
times = st.integers(-62_135_596_800, 253_402_300_799).map(lambda seconds: seconds * 1000)
conditions = st.one_of(
    st.builds(Condition, st.sampled_from(NAMES), st.sampled_from(EQUALITY), plain),
    st.builds(Condition, st.just(Field.NAME), st.just(Operator.HOLDS), plain),
    st.builds(Condition, st.just(Field.KIND), st.sampled_from(EQUALITY), st.sampled_from(["sequence", "portfolio"])),
    st.builds(Condition, st.just(Field.CREATED), st.sampled_from(COMPARISONS), times),
    st.builds(Condition, st.sampled_from(AMOUNTS), st.sampled_from(ORDERED), counts),
    st.builds(
        Condition,
        st.just(Field.METADATA),
        st.sampled_from(ORDERED),
        plain | st.floats(allow_nan=False, allow_infinity=False),
        keys,
    ),
)


@given(st.text() | SUSPICIOUS)
@example("metadata.x > " + "9" * 400)
@example("created < 9999-12-31T23:59:61Z")
@example("number = ٣")
def test_reading_a_query_ends_in_conditions_or_says_where_it_cannot_be_read(text: str) -> None:
    for parse in (parse_query, parse_order):
        try:
            parse(text)
        except InvalidQuery as error:
            assert 0 <= int(error.metadata["position"]) <= len(text)


@given(st.lists(conditions, max_size=8))
def test_what_is_written_is_read_again(wanted: list[Condition]) -> None:
    assert list(parse_query(format_query(wanted))) == wanted


@given(SUSPICIOUS)
def test_what_was_read_is_written_and_means_the_same(text: str) -> None:
    try:
        found = parse_query(text)
    except InvalidQuery:
        return
    assert parse_query(format_query(found)) == found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", []),
        ("  \t\n", []),
        (
            "type=model tag=approved metadata.accuracy > 0.9",
            [
                Condition(Field.TYPE, Operator.EQUAL, "model"),
                Condition(Field.TAG, Operator.EQUAL, "approved"),
                Condition(Field.METADATA, Operator.GREATER, 0.9, "accuracy"),
            ],
        ),
        ("bert", [Condition(Field.NAME, Operator.HOLDS, "bert")]),
        ('"Digit Reader"', [Condition(Field.NAME, Operator.HOLDS, "Digit Reader")]),
        ("type", [Condition(Field.NAME, Operator.HOLDS, "type")]),
        ('name="Digit Reader"', [Condition(Field.NAME, Operator.EQUAL, "Digit Reader")]),
        (r'name ~ "a\"b\\c"', [Condition(Field.NAME, Operator.HOLDS, r'a"b\c')]),
        ("tag=owner=ann", [Condition(Field.TAG, Operator.EQUAL, "owner=ann")]),
        ("alias!=latest", [Condition(Field.ALIAS, Operator.NOT_EQUAL, "latest")]),
        ("kind = portfolio", [Condition(Field.KIND, Operator.EQUAL, "portfolio")]),
        (
            "size>=10 files<3",
            [Condition(Field.SIZE, Operator.GREATER_OR_EQUAL, 10), Condition(Field.FILES, Operator.LESS, 3)],
        ),
        ("created>=2026-01-31", [Condition(Field.CREATED, Operator.GREATER_OR_EQUAL, 1_769_817_600_000)]),
        ("created<2026-01-31T12:00:01Z", [Condition(Field.CREATED, Operator.LESS, 1_769_860_801_000)]),
        ("metadata.a.b=-1.5e3", [Condition(Field.METADATA, Operator.EQUAL, -1500.0, "a.b")]),
        ("metadata.ok=true", [Condition(Field.METADATA, Operator.EQUAL, "true", "ok")]),
        ('metadata.code="7"', [Condition(Field.METADATA, Operator.EQUAL, "7", "code")]),
        ("metadata.version=1.2.3", [Condition(Field.METADATA, Operator.EQUAL, "1.2.3", "version")]),
    ],
)
def test_a_query_means_what_the_protocol_says(query: str, expected: list[Condition]) -> None:
    assert list(parse_query(query)) == expected


@pytest.mark.parametrize(
    ("query", "position", "words"),
    [
        ("colour=red", 0, "there are project, name"),
        ("metadata=5", 0, "metadata.KEY"),
        ("metadata.=5", 0, "metadata.KEY"),
        ("name.x=5", 0, "there are"),
        ("=5", 0, "a field or a word is missing"),
        ("tag=a type=", 11, "a value is missing"),
        ("metadata.a == 5", 12, "double quotes"),
        ('name="a', 5, "quotes do not end"),
        (r'name="a\n"', 5, "quotes do not end"),
        ('tag="a"b', 7, "space is missing"),
        ('a"b"', 1, "space is missing"),
        ("tag~a", 3, "use one of = !="),
        ("created=2026-01-31", 7, "use one of < <= > >="),
        ("created>yesterday", 8, "2026-01-31T12:00:00Z"),
        ("created>2026-02-30", 8, "no time"),
        ("number=v3", 7, "not a number"),
        ("size<-1", 5, "not a number"),
        ("size<1000000000000000000", 5, "18 digits"),
        ("metadata.x<1e999", 11, "larger than any number"),
        ("kind=model", 5, "sequence or portfolio"),
        ("tag=a\0", 5, "control character"),
        ("x" * (MAX_CHARACTERS + 1), MAX_CHARACTERS, "4,096"),
        ("a " * (MAX_CONDITIONS + 1), 2 * MAX_CONDITIONS, "at most 20 conditions"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(query: str, position: int, words: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(query)
    assert caught.value.metadata["position"] == str(position)
    assert words in caught.value.message


def test_a_collection_has_fewer_fields() -> None:
    for field in ("alias", "number", "metadata.x", "run", "size", "files"):
        with pytest.raises(InvalidQuery):
            parse_query(f"{field}=1", COLLECTION_FIELDS)
    assert (
        len(parse_query("project=a b type=c kind=sequence tag=d creator=e created<2026-01-01", COLLECTION_FIELDS)) == 7
    )


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", NEWEST_FIRST),
        ("created", Order(Field.CREATED)),
        (" name  desc ", Order(Field.NAME, descending=True)),
        ("size", Order(Field.SIZE)),
        ("metadata.a.b desc", Order(Field.METADATA, True, "a.b")),
    ],
)
def test_an_order_means_what_the_protocol_says(order_by: str, expected: Order) -> None:
    assert parse_order(order_by) == expected


@pytest.mark.parametrize(
    ("order_by", "position"),
    [("tag", 0), (" number", 1), ("metadata.", 0), ("size asc", 4), ("size desc desc", 4), ("name\0", 4)],
)
def test_an_order_that_cannot_be_read_is_told_with_its_place(order_by: str, position: int) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_order(order_by)
    assert caught.value.metadata["position"] == str(position)
