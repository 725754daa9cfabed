"""WordNet (Miller 1995), which METEOR asks for synonyms, wherever it is on the machine.

nltk downloads its copy only when it is told to (`python -m nltk.downloader wordnet`).
Debian's package `wordnet-base` has the same dictionary, as the authors released it.
"""

import functools
import io
import os
import warnings
from pathlib import Path

import nltk.data
from nltk.corpus import wordnet
from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

# Where WordNet itself looks, and what Debian's package has it look in.
_VARIABLE, _DEBIAN = "WNSEARCHDIR", "/usr/share/wordnet"
_TOPICS = 45  # lines of the file "lexnames", which the package lacks


class Absent(Exception):
    """A part that a metric needs is not here; the message says how to get it."""


class Synonyms:
    """nltk's reader as METEOR uses it, with a memory."""

    def __init__(self, reader: WordNetCorpusReader, source: str):
        """Takes nltk's reader, and whose files it reads, for the report."""
        self._reader, self.source = reader, source
        self._found: dict[str, list[Synset]] = {}

    def synsets(self, word: str) -> list[Synset]:
        """The meanings of a word; each knows the words that share it."""
        if word not in self._found:
            self._found[word] = self._reader.synsets(word)
        return self._found[word]


@functools.cache
def find() -> Synonyms:
    """WordNet from nltk's data, else from the folder of WordNet's own files.

    Raises:
      Absent: it is in neither place, or cannot be read.
    """
    try:
        wordnet.ensure_loaded()
        return Synonyms(wordnet, "nltk's data")
    except LookupError:
        folder = Path(os.environ.get(_VARIABLE, _DEBIAN))
    if not (folder / "data.noun").is_file():
        raise Absent(
            "WordNet is not here: `python -m nltk.downloader wordnet`, or Debian's "
            f"package wordnet-base, or {_VARIABLE}=folder with data.noun"
        )
    # nltk opens files below the folders of this list only.
    nltk.data.path.append(str(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # No other languages: none are asked for.
            return Synonyms(_Released(str(folder), None), "WordNet's own files")
    except (OSError, ValueError, LookupError, AssertionError) as error:
        raise Absent(f"WordNet in {folder} cannot be read ({error})") from error


class _Released(WordNetCorpusReader):
    """WordNet's own files, without the two that only nltk's copy has."""

    def open(self, file: str) -> io.IOBase:
        """A file of the dictionary; names of topics, which METEOR never reads."""
        if file == "lexnames":
            return io.StringIO("".join(f"{i:02d} {i} 0\n" for i in range(_TOPICS)))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """No map to the numbers of another version, which other languages need."""
