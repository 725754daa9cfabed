"""What a language model writes → pairs, by the first way of reading that finds any.

    json      [{"question": "…", "answer": "…"}], or an object with one such list
    fenced    the same between ```json and ```
    inside    the same, with words before or after
    python    a list of dictionaries, as Python writes it: [{'question': '…', …}]
    cut       the whole objects of a list that breaks off
    lines     Q: … and A: … , or 1. … and Answer: … , on lines of their own
    nothing   none of these

Of a text that reached its limit, the last answer on lines breaks off, and is none.
Nothing of a text is run: Python's literals are read by `ast.literal_eval`.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from musilingo_jax.instruction.pairs import Pair
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import parse_json

NOTHING = "nothing"
# Longer texts are no reply to such a request, and are not worth the time.
_MOST_LETTERS = 200_000
_QUESTIONS, _ANSWERS = ("question", "q", "instruction"), ("answer", "a", "response")
_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_OBJECT = re.compile(r"\{[^{}]*\}")
# Before a question: "Q:", "**Question 3:**", "3." or "3)"; before an answer: "A:".
_ASKED = re.compile(
    r"""[\s>*_#-]*(?:\d{1,3}[.)][\s*_]*)?(?P<named>(?:question|q)\s?\d{0,3}[*_]*[:.)])?""",
    re.VERBOSE | re.IGNORECASE,
)
_SAID = re.compile(
    r"""[\s>*_#-]*(?:answer|a|response)\s?\d{0,3}[*_]*[:.)]""",
    re.VERBOSE | re.IGNORECASE,
)
_MARKS = " \t*_"


class Reply(NamedTuple):
    """A text that was read.

    Attributes:
      pairs: what it holds.
      parse: the way in which it was read, as above.
      broken: entries that are no pairs, or whose answer breaks off.
    """

    pairs: list[Pair]
    parse: str
    broken: int


def read(text: str, *, cut: bool = False) -> Reply:
    """Reads a model's text.

    Args:
      text: all that it wrote.
      cut: whether it had more to say than it was allowed to.
    """
    cut = cut or len(text) > _MOST_LETTERS
    text = text[:_MOST_LETTERS]
    for parse, find in _WAYS.items():
        found = find(text)
        if found is None:
            continue
        pairs = [pair for entry in found if (pair := _pair(entry)) is not None]
        if cut and find is _lines:
            pairs = pairs[:-1]
        if pairs:
            return Reply(pairs, parse, len(found) - len(pairs))
    return Reply([], NOTHING, 0)


def _pair(entry: Any) -> Pair | None:
    """The pair of an entry, whatever its keys are called."""
    if not isinstance(entry, dict):
        return None
    texts = {str(key).strip().lower(): value for key, value in entry.items()}
    question, answer = (
        next((texts[name] for name in names if isinstance(texts.get(name), str)), None)
        for names in (_QUESTIONS, _ANSWERS)
    )
    if question is None or answer is None:
        return None
    return Pair(_one_line(question), _one_line(answer))


def _one_line(text: str) -> str:
    return " ".join(whole_letters(text).split())


def whole_letters(text: str) -> str:
    """A text in which halves of letters, which JSON allows, are replaced by a mark."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_Entries = list[Any] | None


def _json(text: str) -> _Entries:
    try:
        return _listed(parse_json(text, ""))
    except UserError:
        return None


def _listed(value: Any) -> _Entries:
    """The list that a value is, or that is the only one inside of it."""
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(lists) == 1 else [value]
    return value if isinstance(value, list) else None


def _fenced(text: str) -> _Entries:
    blocks = [_json(block) or _python(block) for block in _FENCE.findall(text)]
    return [entry for block in blocks for entry in block or ()] or None


def _inside(text: str) -> _Entries:
    start, end = text.find("["), text.rfind("]")
    return _json(text[start : end + 1]) if 0 <= start < end else None


def _python(text: str) -> _Entries:
    start, end = text.find("["), text.rfind("]")
    if not 0 <= start < end:
        return None
    return _listed(_literal(text[start : end + 1]))


def _literal(text: str) -> Any:
    """The value that Python writes so; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of strange escapes in a literal.
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _whole_objects(text: str) -> _Entries:
    return list(filter(None, map(_object, _OBJECT.findall(text)))) or None


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _literal(text)


def _lines(text: str) -> _Entries:
    return [
        {"question": question, "answer": " ".join(said)}
        for question, said in _turns(text)
    ] or None


def _turns(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each question with the lines of its answer."""
    question: str | None = None
    said: list[str] | None = None
    for line in text.splitlines():
        if answer := _SAID.match(line):
            said = [line[answer.end() :].strip(_MARKS)] if question else None
        elif (asked := _question(line)) is not None:
            if question and said is not None:
                yield question, said
            question, said = asked, None
        elif said is not None:
            said.append(line.strip(_MARKS))
        elif question == "":  # "Question:" alone, and what it is on the next line.
            question = line.strip(_MARKS)
    if question and said is not None:
        yield question, said


def _question(line: str) -> str | None:
    """The question that a line asks after "Q:", or after a number; else None."""
    found = _ASKED.match(line)
    if found is None or not found.end():
        return None
    text = line[found.end() :].strip(_MARKS)
    return text if found["named"] or text.endswith("?") else None


_WAYS: dict[str, Callable[[str], _Entries]] = {
    "json": _json,
    "fenced": _fenced,
    "inside": _inside,
    "python": _python,
    "cut": _whole_objects,
    "lines": _lines,
}
PARSES = (*_WAYS, NOTHING)
"""All ways of reading, the strictest first."""
