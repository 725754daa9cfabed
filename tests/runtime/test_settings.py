"""Sections of a config: each bound is checked, each message names its key."""

from dataclasses import dataclass, field

import pytest
from ml_collections import ConfigDict

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import (
    check,
    describe,
    identity_of,
    read_section,
    setting,
    with_before,
)


@dataclass(frozen=True)
class Inner:
    text: str


@dataclass(frozen=True)
class Outer:
    inner: Inner
    steps: int = setting(at_least=1)
    rate: float = setting(above=0, at_most=1)
    kind: str = setting(choices=("a", "b"))
    sizes: tuple[int, ...] = setting(at_least=1)
    flag: bool = setting()
    limit: float | None = setting(at_least=0)
    policy: str = setting(choices=("full", "dots"), before="full")


GOOD = {
    "inner": {"text": "x"},
    "steps": 3,
    "rate": 1,
    "kind": "a",
    "sizes": [1, 2],
    "flag": False,
    "limit": None,
    "policy": "dots",
}


def test_a_section_becomes_a_dataclass():
    found = read_section(Outer, ConfigDict(GOOD), "config.outer")
    assert found == Outer(Inner("x"), 3, 1, "a", (1, 2), False, None, "dots")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", 0, "config.outer.steps is 0: it must be at least 1"),
        ("steps", True, "config.outer.steps is True: it must be a whole number"),
        ("steps", 1.0, "config.outer.steps is 1.0: it must be a whole number"),
        ("rate", 0, "config.outer.rate is 0: it must be above 0 and at most 1"),
        ("rate", 2.0, "config.outer.rate is 2.0: it must be above 0 and at most 1"),
        ("rate", float("nan"), "config.outer.rate is nan: it must be a finite number"),
        ("rate", "1", "config.outer.rate is '1': it must be a finite number"),
        ("kind", "c", "config.outer.kind is 'c': choose one of 'a', 'b'"),
        ("sizes", [1, 0], r"config.outer.sizes is \(1, 0\): it must be at least 1"),
        ("sizes", 1, "config.outer.sizes is 1: it must be a list, each entry a whole"),
        ("flag", 1, "config.outer.flag is 1: it must be True or False"),
        ("limit", -1, "config.outer.limit is -1: it must be at least 0"),
        ("inner", {"text": 1}, "config.outer.inner.text is 1: it must be text"),
        ("inner", {}, "config.outer.inner lacks text"),
        ("inner", "x", "config.outer.inner is 'x': it must be a section with keys"),
        ("other", 1, "config.outer has other, which nothing reads"),
    ],
)
def test_what_is_wrong_is_named(key, value, message):
    with pytest.raises(UserError, match=message):
        read_section(Outer, GOOD | {key: value}, "config.outer")


def test_a_missing_key_is_named_unless_older_configs_lack_it():
    for key in GOOD:
        rest = {name: value for name, value in GOOD.items() if name != key}
        if key == "policy":
            assert read_section(Outer, rest, "config.outer").policy == "full"
        else:
            with pytest.raises(UserError, match=f"config.outer lacks {key}"):
                read_section(Outer, rest, "config.outer")


def test_other_keys_may_be_allowed():
    found = read_section(Inner, {"text": "x", "more": 1}, "here", allow_others=True)
    assert found == Inner("x")


def test_what_was_made_directly_can_be_checked():
    with pytest.raises(UserError, match="config.json.steps is 0: it must be at least"):
        check(Outer(Inner("x"), 0, 1, "a", (1,), False, None, "full"), "config.json")


@dataclass(frozen=True)
class Later:
    """`Inner` under another name, with a field that came later."""

    text: str
    size: int = setting(before=7)


def test_a_field_that_came_later_leaves_the_identity_as_it_was():
    names = {Inner: "Inner", Later: "Inner"}
    assert identity_of(Later("x", 7)) == identity_of(Inner("x"))
    assert (
        describe(Later("x", 7), names)
        == describe(Inner("x"), names)
        == repr(Inner("x"))
    )
    assert identity_of(Later("x", 8)) == {"text": "x", "size": 8}
    assert describe(Later("x", 8), names) == "Inner(text='x', size=8)"


def test_a_description_spells_nested_sections_as_repr_does():
    outer = read_section(Outer, GOOD, "config.outer")
    assert describe(outer, {Outer: "Outer", Inner: "Inner"}) == repr(outer)
    assert "limit" in identity_of(outer)


def test_fields_without_bounds_need_none():
    @dataclass(frozen=True)
    class Plain:
        number: float
        text: str = field()

    assert read_section(Plain, {"number": 1, "text": ""}, "x") == Plain(1, "")


@dataclass(frozen=True)
class Nested:
    outer: Outer
    other: int


def test_keys_that_did_not_exist_yet_are_filled_in_at_any_depth():
    old = {key: value for key, value in GOOD.items() if key != "policy"}
    section = {"outer": old, "unknown": [1]}
    filled = {"outer": GOOD | {"policy": "full"}, "unknown": [1]}
    assert with_before(Nested, section) == filled
    assert with_before(Nested, filled) == filled
    assert with_before(Outer, GOOD) == GOOD
    assert "policy" not in old
