"""Text → words in any script, and their stems."""

import functools

import regex
from nltk.stem.porter import PorterStemmer

# Scripts that are written without spaces: each letter, with its marks, is a word.
_CLOSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[[\p{{L}}\p{{N}}]&&[{_CLOSE}]]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{_CLOSE}]]+"
)
_CACHED = 1 << 14  # Texts. Controls give the same answers again.


@functools.lru_cache(maxsize=_CACHED)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation and symbols.

    "A café, 120 BPM!"  → "a", "café", "120", "bpm"
    "静かなピアノ"         → "静", "か", "な", "ピ", "ア", "ノ"
    "🎹…"               → no words
    """
    return tuple(_WORD.findall(text.lower()))


@functools.lru_cache(maxsize=_CACHED)
def stems(text: str) -> tuple[str, ...]:
    """`words`, without English endings if longer than three letters, as in ROUGE."""
    return tuple(Stemmer.stem(w) if len(w) > 3 else w for w in words(text))


class Stemmer:
    """nltk's Porter stemmer with a cache."""

    _porter = PorterStemmer()

    @staticmethod
    @functools.lru_cache(maxsize=1 << 16)
    def stem(word: str) -> str:
        """The stem of a word in lower case: "Pianos" → "piano"."""
        return Stemmer._porter.stem(word)
