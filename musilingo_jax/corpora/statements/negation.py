"""Which parts of a text deny something: "not rock", "without drums or bass"."""

import bisect
import re
import unicodedata

_DENIES = re.compile(
    r"""\b(?:
        not (?!\s+(?:only|just|merely|simply)\b)
            (?!(?<=it\ were\ not|were\ it\ not)\s+for\b)
      | no (?!\s+(?:doubt|question|wonder|less)\b) | never | without | neither | nor
      | cannot | lack(?:s|ing)? | rather\s+than | instead\s+of | absence\s+of
      | (?:is|are|was|were|do|does|did|has|have|had|ca|wo|could|would|should)n['’]?t
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
# Denies one word: "non-lexical vocables" are vocables.
_NON = re.compile(r"\bnon-\w*", re.IGNORECASE)
# Where a denial ends. A list goes on after a comma if it has an "or" or a "nor": "no
# drums, bass or guitar", but "no drums, a piano".
_ENDS = re.compile(
    r"""[.!?;:()\n] | \s[-–—]\s | —
      | ,(?! [^.!?;:()\n]{0,200} \bn?or\b)
      | \b(?:but|however|though|although|yet|just|only|while|whereas|because
            |which|it|there|i|we|they|this|other\s+than|except|apart\s+from
            |besides)\b
      | \band\s+(?=(?:an?|the|some|in|is|are|has|have|with|then)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
# Before a denial that is one entry of a list, whose last entry is one of its own: "a
# piano, no drums and a bass", "piano, no drums and bass".
_IN_LIST = re.compile(r",\s+\Z")
_LAST_ENTRY = re.compile(r"\band\b", re.IGNORECASE)
_LONGEST = 300  # letters that one denial reaches at most
# A denial that follows what it denies: "drums are absent".
_DENIED_AFTER = re.compile(
    r"""\s+ (?:(?:is|are|was|were|seems?|sounds?)\s+)?
        (?: absent | missing
          | not \s+
            (?:present|heard|audible|used|there|playing|played|included|featured) )\b
      | \s+ (?:is|are|was|were)n['’]?t \s+
        (?:present|heard|audible|used|there|playing|played|included|featured)\b""",
    re.VERBOSE | re.IGNORECASE,
)


class Denials:
    """The stretches of one text that deny what they name.

        It is not rock or pop but jazz, without drums.
                 ‾‾‾‾‾‾‾‾‾‾‾‾                  ‾‾‾‾‾‾

    A list that goes on with "or" or "nor" is denied as a whole, and so is "no drums and
    bass". In "piano, no drums and bass" the denial is an entry among others.
    """

    def __init__(self, text: str):
        """Finds them."""
        self._text = text
        self._starts: list[int] = []
        self._ends: list[int] = []
        place = 0
        while found := _DENIES.search(text, place):
            place = min(found.end() + _LONGEST, len(text))
            if end := _ENDS.search(text, found.end(), place):
                place = end.start()
            if _IN_LIST.search(text, max(0, found.start() - 4), found.start()) and (
                end := _LAST_ENTRY.search(text, found.end(), place)
            ):
                place = end.start()
            self._starts.append(found.end())
            self._ends.append(place)
        self._words = [found.span() for found in _NON.finditer(text)]

    def __contains__(self, span: tuple[int, int]) -> bool:
        """Whether what a span of the text names is denied."""
        start, end = span
        if _DENIES.match(self._text, start):  # A value such as "no drums".
            return False
        if any(first < start < last for first, last in self._words):
            return True
        place = bisect.bisect_right(self._starts, start) - 1
        before = place >= 0 and start < self._ends[place]
        return before or _DENIED_AFTER.match(self._text, end) is not None


def begins_with_denial(text: str) -> bool:
    """Whether a text begins by denying something, such as "no drums"."""
    return _DENIES.match(text) is not None


def plain(text: str) -> str:
    """A text in one Unicode form, in which equal words are equal strings.

    Full-width letters and ligatures become plain ones, Latin accents are dropped. Upper
    and lower case stay.

        "Ｆ＃ ｍｉｎｏｒ"                      → "F# minor"
        "Forró", composed or not     → "Forro"
    """
    if text.isascii():
        return text
    split = unicodedata.normalize("NFKD", text)
    kept = "".join(
        c for c in split if not "\u0300" <= c <= "\u036f" and c not in "\ufe0e\ufe0f"
    )
    return unicodedata.normalize("NFKC", kept)
