r"""Interprets pickles of plain values and tensors, and runs none of their code.

A pickle is a program for a machine with a stack. These bytes make {"a": (1, 2)}:

    EMPTY_DICT  BINUNICODE a  BININT1 1  BININT1 2  TUPLE2  SETITEM  STOP

Most instructions make plain values. Three could do anything: `GLOBAL` names a function
of any module, `REDUCE` and `NEWOBJ` call it. Here a name stands for one of the few
functions that the caller provides, and any other name is refused, so nothing of the
file is ever imported or called. `pickletools` of the standard library cuts the bytes
into instructions; a text that claims to be longer than the file is an error to it, and
memory grows with the file, never with the numbers in it.
"""

import io
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Function = Callable[..., Any]

_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
"""Instructions that push their own argument."""

_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # As the order of a set does not count.
}
"""Instructions that push a value of their own."""


class Attributes(dict[str, Any]):
    """The attributes of an object that is nothing but data."""


_COUNTED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_MARK = object()


class UnknownGlobal(Exception):
    """The program names a function that was not provided, as its text says."""


def run(
    program: bytes, functions: Mapping[str, Any], persistent: Callable[[Any], Any]
) -> Any:
    """The value that a pickle describes.

    Args:
      program: the pickle.
      functions: "module.name" → what it stands for; called if the pickle calls it.
      persistent: what the pickle's references to things outside of it stand for.

    Raises:
      UnknownGlobal: the program names another function.
      ValueError, TypeError, LookupError: it is broken.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for code, argument, _ in pickletools.genops(io.BytesIO(program)):
        name = code.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name in _PUTS:
            memo[int(argument)] = stack[-1]  # type: ignore[arg-type]
        elif name in _GETS:
            stack.append(memo[int(argument)])  # type: ignore[arg-type]
        elif name == "STOP":
            return stack.pop()
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(_function(functions, *str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_function(functions, module, attribute))
        elif name in _COUNTED:
            items = tuple(stack[-_COUNTED[name] :])
            if len(items) < _COUNTED[name]:
                raise ValueError("it takes more from the stack than there is")
            stack[-len(items) :] = [items]
        elif name == "BINPERSID":
            stack.append(persistent(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            if not callable(function) or not isinstance(arguments, tuple):
                raise ValueError("it calls what is not a function")
            stack.append(function(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            # Those of a dict or a tensor hold no weights.
            if isinstance(stack[-1], Attributes) and isinstance(state, dict):
                stack[-1].update(state)
        elif name not in ("PROTO", "FRAME"):
            _collect(name, stack)
    raise ValueError("it has no end")


def _collect(name: str, stack: list[Any]) -> None:
    """The instructions that put the values above the last mark into a container."""
    if name in ("APPEND", "SETITEM"):
        count = 1 if name == "APPEND" else 2
        items = [stack.pop() for _ in range(count)][::-1]
        name += "S"
    else:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
    match name:
        case "TUPLE":
            stack.append(tuple(items))
        case "LIST":
            stack.append(items)
        case "DICT":
            stack.append(mapping(zip(items[::2], items[1::2], strict=True)))
        case "FROZENSET":
            stack.append(items)
        case "APPENDS" | "ADDITEMS" if isinstance(stack[-1], list):
            stack[-1].extend(items)
        case "SETITEMS" if isinstance(stack[-1], dict):
            stack[-1].update(mapping(zip(items[::2], items[1::2], strict=True)))
        case _:
            raise ValueError(f"it has the instruction {name} in an impossible place")


def mapping(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dict of pairs; ValueError if a key is not plain.

    The hash of tuples in tuples in tuples could take forever.
    """
    found = {}
    for key, value in pairs:
        inside = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(item, str | int | float | None) for item in inside):
            raise ValueError("a dict has a key that is neither a text nor a number")
        found[key] = value
    return found


def _function(functions: Mapping[str, Any], module: Any, name: Any) -> Any:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("it names a function by something else than text")
    full = f"{module}.{name}"
    if full not in functions:
        raise UnknownGlobal(full)
    return functions[full]
