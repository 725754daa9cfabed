"""Pairs that teach nothing of music, or something false: refused, with the reason.

    missing or broken    empty, too short, too long, placeholder, other letters,
                         other language
    not about the sound  unanswerable, speaks of its source, about the record,
                         speaks as a program, repeats the request
    false                contradicts what is known
    again                the question was asked before

Phrases count where whole words match, in upper or lower case. The first filter that
refuses a pair is the one that is told.
"""

import re
from collections.abc import Callable, Iterable

from musilingo_jax.corpora.statements.negation import plain
from musilingo_jax.instruction import instructions, truth
from musilingo_jax.instruction.pairs import Pair, Refused
from musilingo_jax.instruction.subjects import Subject, Vocabulary

VERSION = 2
"""Of all filters; another one refuses other pairs."""

EMPTY, SHORT, LONG, BLANK = "empty", "too short", "too long", "placeholder"
LETTERS, LANGUAGE = "other letters", "other language"
UNANSWERABLE, SOURCE = "unanswerable", "speaks of its source"
RECORD, PROGRAM = "about the record", "speaks as a program"
ECHO = "repeats the request"
CONTRADICTS, DUPLICATE = "contradicts what is known", "duplicate"
REASONS = (EMPTY, SHORT, LONG, BLANK, LETTERS, LANGUAGE, UNANSWERABLE, SOURCE, RECORD)
REASONS += (PROGRAM, ECHO, CONTRADICTS, DUPLICATE)

_MOST_QUESTION, _MOST_ANSWER = 60, 300  # words
_LEAST_QUESTION = 2
_MOST_FOREIGN = 0.1  # share of letters that are not Latin
_LEAST_WORDS = 8  # of a text whose language is judged
_LEAST_ECHO = 3  # words that are no accident

# What was to be replaced: "[response]", "<answer>", "{key}", "insert the tempo here".
_BLANK = re.compile(
    r"""\[[^\[\]\d]{2,60}\] | <[a-z][^<>\d]{1,60}> | \{[^{}\d]{2,60}\} | _{3,}
      | \binsert\b.{1,30}\bhere\b | \blorem\ ipsum\b""",
    re.VERBOSE | re.IGNORECASE,
)


def _phrases(*texts: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(texts)})\b", re.IGNORECASE)


_UNANSWERABLE = _phrases(
    r"not (?:explicitly |directly )?(?:specified|mentioned|stated|given|provided)",
    r"(?:un|not )known from",
    r"no information",
    r"not enough information",
    r"(?:does|do|did)(?: not|n['’]t) "
    r"(?:specify|mention|state|say|provide|indicate|contain any information)",
    r"(?:cannot|can ?not|can['’]t|could not|impossible to|not possible to|unable to|"
    r"difficult to|hard to) (?:be )?(?:determined?|say|know|tell|infer|inferred)",
    r"(?:is|are|remains?) (?:unclear|unknown|unspecified)",
    r"without (?:more|further|additional) (?:information|context|details)",
    r"i (?:do not|don['’]t) know",
    r"i(?:['’]m| am) not sure",
)
_SOURCE = _phrases(
    r"metadata",
    r"(?:the|this|these|its|given|provided) "
    r"(?:captions?|tags?|json|annotations?|descriptions?)",
    # Not "written in A minor", "a theme stated in the bass" or "the passage is fast".
    r"(?:mentioned|listed|noted) (?:in|above|here)",
    r"(?:stated|written) above",
    r"(?:the|this) above (?:clip|text|song|music|piece|description|passage|sentence)",
    r"the (?:text|sentence) (?:is|says|states|describes|mentions|above)",
    r"captioned",
    r"tagged",
    r"(?:according to|based on|from|per) (?:the|this) "
    r"(?:text|data|information|list|input|prompt)",
    r"(?:the|this) (?:provided|given) (?:text|data|information|list|input)",
    r"data ?set",
)
_RECORD = _phrases(
    r"(?:who|which|what)\b.{0,40}\b(?:artists?|composers?|(?:singer|band)s? called)",
    r"(?:the )?(?:title|name) of (?:the|this|that) "
    r"(?:song|track|piece|artist|band|album|composer|singer|performer)",
    r"(?:song|track|piece|album) (?:title|name)",
    r"what(?:['’]s| is| was) (?:the|its) (?:title|name)",
    r"albums?",
    r"record label",
    r"release date",
    r"(?:when|what year) was (?:it|this|the)",
    r"who (?:wrote|composed|sings|sang|performs|performed|made|produced|recorded)",
    r"how long is (?:the|this) (?:song|track|clip|audio|recording|piece|music)",
    r"(?:duration|length) of (?:the|this) (?:song|track|clip|audio|recording|piece)",
)
# Of the record, not a technique that is called "tremolo".
_NAMED = re.compile(
    r"""\b(?: (?:songs?|tracks?|pieces?|music|compositions?|it|this) \s+
          (?:(?:of\s+music\s+)?(?:(?:is|was)\s+))? (?:called|(?:en)?titled|named)
        | title\s+is) \s+["“‘']""",
    re.VERBOSE | re.IGNORECASE,
)
_PROGRAM = _phrases(
    r"as an? (?:ai|artificial intelligence|(?:large )?language model|text[- ]based)",
    r"language model",
    r"i (?:cannot|can['’]t|am unable to) (?:hear|listen)",
    r"i['’]m sorry",
    r"i apologi[sz]e",
    r"openai",
)
_COMMON = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "i")
    + ("have", "in", "is", "it", "its", "no", "not", "of", "on", "one", "or", "so")
    + ("that", "the", "their", "there", "this", "to", "two", "was", "with", "would")
    + ("yes", "you", "your")
)
_WORD = re.compile(r"[^\W\d_]+")
_REQUESTS = f" {' '.join(_WORD.findall(instructions.ALL.casefold()))} "
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")


def sift(
    pairs: Iterable[Pair], subject: Subject, vocabulary: Vocabulary
) -> tuple[list[Pair], list[Refused]]:
    """Which pairs are used, and which are not.

    Args:
      pairs: of one clip and family.
      subject: what is known of the clip.
      vocabulary: of all clips.
    """
    kept: list[Pair] = []
    refused: list[Refused] = []
    asked: set[str] = set()
    for pair in pairs:
        problem = _problem(pair) or _false(pair, subject, vocabulary)
        question = " ".join(_WORD.findall(plain(pair.question).casefold()))
        if problem is None and question in asked:
            problem = DUPLICATE, pair.question
        if problem is not None:
            refused.append(Refused(pair, *problem))
            continue
        asked.add(question)
        kept.append(pair)
    return kept, refused


_Problem = tuple[str, str] | None


def _false(pair: Pair, subject: Subject, vocabulary: Vocabulary) -> _Problem:
    fact = truth.contradicted(pair, subject, vocabulary)
    return None if fact is None else (CONTRADICTS, fact)


def _problem(pair: Pair) -> _Problem:
    """What is wrong with a pair in itself."""
    return next(filter(None, (check(pair) for check in _CHECKS)), None)


def _length(pair: Pair) -> _Problem:
    question, answer = pair.question.split(), pair.answer.split()
    if not question or not re.search(r"\w", pair.answer):
        return EMPTY, "answer" if question else "question"
    if len(question) < _LEAST_QUESTION:
        return SHORT, f"a question of {len(question)} word"
    if len(question) > _MOST_QUESTION:
        return LONG, f"a question of {len(question)} words"
    if len(answer) > _MOST_ANSWER:
        return LONG, f"an answer of {len(answer)} words"
    return None


def _letters(pair: Pair) -> _Problem:
    """Whether the text is in Latin letters, without pieces of broken encodings."""
    text = pair.question + pair.answer
    if broken := re.search("[\ufffd\x00-\x08\x0b-\x1f]", text):
        return LETTERS, ascii(broken[0])
    letters = [letter for letter in text if letter.isalpha()]
    foreign = [letter for letter in letters if not _LATIN.match(letter)]
    if len(foreign) > _MOST_FOREIGN * len(letters):
        return LETTERS, "".join(foreign[:8])
    return None


def _language(pair: Pair) -> _Problem:
    """Whether a text of some length has any of the commonest English words."""
    for text in (pair.question, pair.answer):
        words = [word.lower() for word in _WORD.findall(text)]
        if len(words) >= _LEAST_WORDS and _COMMON.isdisjoint(words):
            return LANGUAGE, " ".join(words[:6])
    return None


def _echo(pair: Pair) -> _Problem:
    """Whether a question is words of the request: "how to practise it"."""
    words = _WORD.findall(pair.question.casefold())
    question = " ".join(words)
    if len(words) >= _LEAST_ECHO and f" {question} " in _REQUESTS:
        return ECHO, question
    return None


def _speaks(
    reason: str, pattern: re.Pattern[str], *, of: Callable[[Pair], str]
) -> Callable[[Pair], _Problem]:
    def check(pair: Pair) -> _Problem:
        found = pattern.search(of(pair))
        return None if found is None else (reason, found[0])

    return check


def _both(pair: Pair) -> str:
    return f"{pair.question}\n{pair.answer}"


_CHECKS: tuple[Callable[[Pair], _Problem], ...] = (
    _length,
    _speaks(BLANK, _BLANK, of=_both),
    _letters,
    _language,
    _speaks(UNANSWERABLE, _UNANSWERABLE, of=lambda pair: pair.answer),
    _speaks(SOURCE, _SOURCE, of=_both),
    _speaks(RECORD, _RECORD, of=lambda pair: pair.question),
    _speaks(RECORD, _NAMED, of=lambda pair: pair.answer),
    _speaks(PROGRAM, _PROGRAM, of=_both),
    _echo,
)
