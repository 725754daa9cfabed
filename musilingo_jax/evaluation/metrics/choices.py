"""Which option of a multiple choice an answer chooses."""

import re
from collections.abc import Sequence

from musilingo_jax.corpora.statements import values
from musilingo_jax.corpora.statements.negation import Denials, plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PREFIX = "The correct answer is:"
# May surround the text of an option without being part of the answer.
_AROUND = " \t\n.!?:;,\"'“”‘’()[]*"
_ARTICLE = re.compile(r"^(?:an?|the)\s+")
# Ends what was thought aloud: the answer follows.
_ANNOUNCED = re.compile(
    r"""(?:answer|option|choice|choose|pick|select) \s+ (?:is|would\s+be) \s* :?
      | (?:final|correct|best|right|my) \s+ (?:answer|option|choice) \s* :
      | ^ \s* \**(?:answer|response)\** \s* : | \b(?:therefore|thus|hence) \b ,?""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# "(B)", "[[B]]", "**B**", "Option B", "B." and "B:" before a text
_MARKED = re.compile(
    r"""[(\[{*"“'‘] \s* (?P<inside>[A-Za-z]) \s* [)\]}*"”'’]
      | \b(?i:option|choice|answer) \s+ \(? (?P<named>[A-Za-z])\b
      | (?:^|\n) \s* (?P<first>[A-Za-z]) \s* (?:[).:] | \s [-–—] ) (?=\s|$)""",
    re.VERBOSE,
)
# A letter alone. "A" before a word is the article.
_ALONE = re.compile(
    r"(?<![\w'’])(?P<alone>[B-Z]|A(?!\s+(?!(?:or|and|is)\b)\w))(?![\w'’#♯♭])"
)
_LABEL = re.compile(
    r"\s*[(\[]?\s*(?P<letter>[A-Za-z])\s*[)\].:]\s*(?P<text>.*\S)", re.DOTALL
)


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that an answer chooses; None if it chooses none.

    What follows the last announcement ("The answer is …") counts, if anything does.
    There, in this order: a text that is an option and nothing more, in any case; one
    marked letter ("(B)", "Option B", "B. a flute"); one option whose text it has; one
    letter alone. What is denied does not count, and neither do two different ones.

        options: "A piano", "A flute", "Drums"
        "A flute."  "flute"  "(b)"  "B) drums and bass"     → 1
        "Not A. The answer is B."                           → 1
        "I hear A or B: a flute."                           → 1
        "A or B", "no idea", "A calm song"                  → None

    Args:
      answer: the answer.
      options: the texts, in the order of the letters, with or without them.
    """
    texts = unlabelled(options)
    announced = list(_ANNOUNCED.finditer(answer))
    tail = answer[announced[-1].end() :] if announced else answer
    found = _read(tail, texts)
    return _read(answer, texts) if found is None and announced else found


def published_choice(answer: str, options: Sequence[str]) -> int | None:
    """The option that an answer chooses by the rule of MuChoMusic (Weck et al. 2024).

    If the answer contains exactly one of the letters A, B, …, that one; any capital
    letter counts, so that "By drums" and "A flute" choose B and A. Else the first
    option whose text the answer contains.

    Args:
      answer: the answer; anything before "The correct answer is:" is ignored.
      options: the texts, in the order of the letters.
    """
    answer = answer.split(_PREFIX)[-1]
    letters = set(LETTERS[: len(options)]) & set(answer)
    if len(letters) == 1:
        return LETTERS.index(letters.pop())
    answer = answer.lower()
    for index, option in enumerate(options):
        if option.lower().strip() in answer:
            return index
    return None


def right(value: str, options: Sequence[str]) -> int | None:
    """The index of the right option, which is given as its letter, text or both."""
    texts = [_plain(option) for option in options]
    if (text := _plain(value)) in texts:
        return texts.index(text)
    texts = [_plain(option) for option in unlabelled(options)]
    if text in texts:
        return texts.index(text)
    letter = value.strip(_AROUND)
    if len(letter) == 1 and letter.upper() in LETTERS[: len(options)]:
        return LETTERS.index(letter.upper())
    labelled = _LABEL.fullmatch(value)
    if labelled and _plain(labelled["text"]) in texts:
        place = texts.index(_plain(labelled["text"]))
        return place if labelled["letter"].upper() == LETTERS[place] else None
    return None


def unlabelled(options: Sequence[str]) -> list[str]:
    """The options without their letters, if all of them begin with theirs."""
    found = [_LABEL.fullmatch(option) for option in options]
    texts = [match["text"] for match in found if match is not None]
    letters = [match["letter"].upper() for match in found if match is not None]
    is_labelled = letters == list(LETTERS[: len(options)])
    return texts if is_labelled else list(options)


def _read(answer: str, options: Sequence[str]) -> int | None:
    answer = plain(answer)
    texts = [_plain(option) for option in options]
    if (whole := _plain(answer)) in texts:
        return texts.index(whole)
    bare = [_ARTICLE.sub("", text) for text in texts]
    if (core := _ARTICLE.sub("", whole)) and bare.count(core) == 1:
        return bare.index(core)
    letters = LETTERS[: len(options)]
    if len(whole) == 1 and whole.upper() in letters:
        return letters.index(whole.upper())
    denials = Denials(answer)
    marked = _letters(_MARKED, answer, letters, denials)
    if len(marked) == 1:
        return letters.index(marked.pop())
    keys = [values.key_of(text) for text in bare]
    stated = {found.key for found in values.stated(answer, bare)} & {*keys}
    if len(stated) == 1 and keys.count(key := stated.pop()) == 1:
        return keys.index(key)
    alone = _letters(_ALONE, answer, letters, denials)
    return letters.index(alone.pop()) if len(alone) == 1 and not stated else None


def _letters(
    pattern: re.Pattern[str], answer: str, letters: str, denials: Denials
) -> set[str]:
    """The letters of options that a pattern finds, without those that are denied."""
    found = set()
    for match in pattern.finditer(answer):
        letter = match[match.lastgroup or 0].upper()
        if letter in letters and match.span() not in denials:
            found.add(letter)
    return found


def _plain(text: str) -> str:
    # A text of punctuation alone is kept, so that such texts differ.
    return plain(text).strip(_AROUND).casefold() or text.strip()
