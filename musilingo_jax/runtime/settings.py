"""Sections of a config as frozen dataclasses whose fields carry their own bounds.

A bound is declared once, beside the field; `read_section` checks every field and names
the key in its message:

    @dataclass(frozen=True)
    class StageConfig:
        steps: int = setting(at_least=1)
        learning_rate: float = setting(above=0)
        questions: str = setting(choices=("captions", "questions", "all"))
        remat: bool
        policy: str = setting(choices=("full", "dots"), before="full")

    read_section(StageConfig, config.stage1, "config.stage1")

    UserError: config.stage1.steps is 0: it must be at least 1

No field has a default: a config states every number. `before` is not a default. It is
the value that is implied by configs written before the field existed; a run or a cache
of that time keeps its identity as long as the field has this value.
"""

import math
import os
import reprlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import (
    MISSING,
    Field,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
)
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, get_args, get_origin

from musilingo_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

T = TypeVar("T")

_METADATA = "musilingo_jax"


@dataclass(frozen=True)
class Bounds:
    """The allowed values of a field; attributes as the arguments of `setting`."""

    at_least: float | None
    above: float | None
    at_most: float | None
    choices: tuple[Any, ...]
    before: Any

    def problem(self, value: Any) -> str | None:
        """Which bound the value violates; None if it is within all of them."""
        if self.choices and value not in self.choices:
            return "choose one of " + ", ".join(map(repr, self.choices))
        numbers = value if isinstance(value, tuple) else (value,)
        limits = {
            f"at least {self.at_least}": self.at_least is None
            or all(number >= self.at_least for number in numbers),
            f"above {self.above}": self.above is None
            or all(number > self.above for number in numbers),
            f"at most {self.at_most}": self.at_most is None
            or all(number <= self.at_most for number in numbers),
        }
        if all(limits.values()):
            return None
        stated = [limit for limit in limits if not limit.endswith("None")]
        return f"it must be {' and '.join(stated)}"


_UNBOUNDED = Bounds(None, None, None, (), MISSING)


def setting(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[Any, ...] = (),
    before: Any = MISSING,
    default: Any = MISSING,
) -> Any:
    """A field of a dataclass that `read_section` fills, with its bounds.

    Args:
      at_least: lowest value of a number, or of each number of a tuple.
      above: value that the number must exceed.
      at_most: highest value.
      choices: all allowed values.
      before: the value implied by configs written before the field existed. Only for
        fields that were added after a release.
      default: the value of objects that are made without the field.
    """
    bounds = Bounds(at_least, above, at_most, choices, before)
    return field(default=default, metadata={_METADATA: bounds})


def read_section(
    kind: type[T],
    section: Any,
    where: str,
    *,
    allow_others: bool = False,
) -> T:
    """Makes the dataclass `kind` from a section of a config, and checks it.

    Lists become tuples, and nested sections become the dataclasses that annotate them.

    Args:
      kind: a dataclass; fields without `setting` are checked by type only.
      section: key → value; anything else is refused, because it may come from a file.
      where: the section's name in messages, such as "config.stage1".
      allow_others: whether the section may have keys that are not fields.

    Raises:
      UserError: it is not a section, a key is missing or unknown, or its value has
        another type or is out of bounds.
    """
    values = plain(section, where)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(map(str, values.keys() - known.keys())):
        if not allow_others:
            raise UserError(
                f"{where} has {', '.join(unknown)}, which nothing reads: is it "
                "misspelt?"
            )
        values = {key: values[key] for key in values.keys() & known.keys()}
    for name, entry in known.items():
        if name not in values and _bounds(entry).before is not MISSING:
            values[name] = _bounds(entry).before
    if missing := [name for name in known if name not in values]:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    return kind(
        **{
            name: _checked(entry, values[name], f"{where}.{name}")
            for name, entry in known.items()
        }
    )


def check_keys(kind: type, section: Any, names: Sequence[str], where: str) -> None:
    """Checks some keys of a section as `read_section` does, and leaves the others.

    Args:
      kind: a dataclass with fields of these names.
      section: as in `read_section`.
      names: of the keys.
      where: as in `read_section`.

    Raises:
      UserError: as in `read_section`, about one of these keys.
    """
    values = plain(section, where)
    known = {entry.name: entry for entry in fields(kind)}
    for name in names:
        if name not in values:
            raise UserError(f"{where} lacks {name}")
        _checked(known[name], values[name], f"{where}.{name}")


def make_config(content: Any, where: str) -> "ConfigDict":
    """The config that was saved as JSON.

    Args:
      content: what the file holds.
      where: the file, for messages.

    Raises:
      UserError: it cannot be a config.
    """
    from ml_collections import ConfigDict

    try:
        return ConfigDict(plain(content, where))
    except (AttributeError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: is not a config ({error})") from error


def plain(section: Any, where: str) -> dict[str, Any]:
    """A section as a dict, with dicts in place of the sections within it.

    Raises:
      UserError: it is not a section, or a value in it was declared and never set.
    """
    if _is_config(section):
        from ml_collections.config_dict import RequiredValueError

        try:
            return section.to_dict()
        except RequiredValueError as error:
            raise UserError(
                f"{where} has a required value that is not set: set it in the config "
                "or on the command line"
            ) from error
    if not isinstance(section, Mapping):
        raise UserError(f"{where} is {_shown(section)}: it must be a section with keys")
    return dict(section)


def check(settings: Any, where: str) -> None:
    """Checks the fields of a dataclass that was made without `read_section`.

    Args:
      settings: an instance of a dataclass with `setting` fields.
      where: the place that they come from, for messages, such as "config.json".

    Raises:
      UserError: a field has another type than its annotation, or is out of bounds.
    """
    for entry in fields(settings):
        _checked(entry, getattr(settings, entry.name), f"{where}.{entry.name}")


def with_before(kind: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a config with the keys that it lacks and that have a `before`.

    So a section that was written before a field existed is equal to one of today that
    states the same meaning. Other keys, and values, are left as they are.

    Args:
      kind: the dataclass that the section is read into.
      section: key → value, with dicts as sections within.
    """
    filled = dict(section)
    for entry in fields(kind):
        before, value = _bounds(entry).before, filled.get(entry.name)
        if entry.name not in filled and before is not MISSING:
            filled[entry.name] = _plain(before)
        elif is_dataclass(entry.type) and isinstance(value, Mapping):
            filled[entry.name] = with_before(entry.type, value)  # type: ignore[arg-type]
    return filled


def _plain(value: Any) -> Any:
    """A value as a config holds it: a section as a dict."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def identity_of(settings: Any) -> dict[str, Any]:
    """Name → value, nested, of the fields that distinguish one configuration.

    A field that was added later is left out while it has the value implied by configs
    without it. So a digest of this dict does not change when the class gets such a
    field.
    """
    return {
        entry.name: identity_of(value) if is_dataclass(value) else value
        for entry in fields(settings)
        if (value := getattr(settings, entry.name)) != _bounds(entry).before
    }


def describe(settings: Any, names: Mapping[type, str]) -> str:
    """One line of text that is equal for equal `identity_of`.

    It has the form of Python's `repr` of dataclasses, with the names given here and not
    those of the classes, which may be renamed:

        LlamaConfig(width=64, …, rope_scaling=LinearScaling(factor=2.0))

    Args:
      settings: a dataclass.
      names: class → name, for its class and those of the dataclasses within it.
    """
    inside = ", ".join(
        f"{entry.name}={describe(value, names) if is_dataclass(value) else repr(value)}"
        for entry in fields(settings)
        if (value := getattr(settings, entry.name)) != _bounds(entry).before
    )
    return f"{names[type(settings)]}({inside})"


def _is_config(value: Any) -> "TypeGuard[ConfigDict]":
    """Whether it is a ConfigDict; where nobody imported their library, nothing is.

    So what only computes, such as `benchmarks/card.py`, runs without it.
    """
    library = sys.modules.get("ml_collections")
    return library is not None and isinstance(value, library.ConfigDict)


def _bounds(entry: Field) -> Bounds:
    return entry.metadata.get(_METADATA, _UNBOUNDED)


def _checked(entry: Field, value: Any, where: str) -> Any:
    """The value converted to the type of its field, if it is within the bounds."""
    if is_dataclass(entry.type) and (isinstance(value, Mapping) or _is_config(value)):
        return read_section(entry.type, value, where)  # type: ignore[arg-type]
    value = tuple(value) if isinstance(value, list) else value
    wanted = _wanted(entry.type, value)
    if wanted is not None:
        raise UserError(f"{where} is {_shown(value)}: it must be {wanted}")
    problem = _bounds(entry).problem(value) if value is not None else None
    if problem is not None:
        raise UserError(f"{where} is {_shown(value)}: {problem}")
    return value


def _shown(value: Any) -> str:
    """A value in a message, where one of a file may be of any length."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number that arrays and libraries in C++ can hold."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and abs(value) < 2**63


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return number and math.isfinite(value)
    except OverflowError:  # A whole number that is larger than every float.
        return False


def _is_text(value: Any) -> bool:
    """Whether it is text that can be written; names of files may have other bytes."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # Half of a surrogate pair.
        return False


_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_whole, "a whole number"),
    float: (_is_finite, "a finite number"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (_is_text, "text"),
    Mapping: (lambda value: isinstance(value, Mapping), "a section with keys"),
}


def _wanted(annotation: Any, value: Any) -> str | None:
    """What the annotation requires, in words, if the value does not fulfil it."""
    if get_origin(annotation) is types.UnionType:
        wanted = [_wanted(kind, value) for kind in get_args(annotation)]
        return None if None in wanted else " or ".join(filter(None, wanted))
    if get_origin(annotation) is tuple:
        fits, wanted = _KINDS[get_args(annotation)[0]]
        if isinstance(value, tuple) and all(map(fits, value)):
            return None
        return f"a list, each entry {wanted}"
    if annotation in _KINDS:
        fits, wanted = _KINDS[annotation]
        if annotation is int and isinstance(value, int) and not _is_whole(value):
            wanted += " below 2**63"
        return None if fits(value) else wanted
    if is_dataclass(annotation):
        fits = isinstance(value, annotation)  # type: ignore[arg-type]
        return None if fits else "a section with keys"
    return None if isinstance(value, annotation) else annotation.__name__
