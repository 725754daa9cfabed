"""WordNet (Miller 1995), from which METEOR takes synonyms, if it is on the machine.

nltk downloads its own copy on request only (`python -m nltk.downloader wordnet`).
Debian's package `wordnet-base` has the same dictionary as its authors released it.
"""

import functools
import io
import os
import warnings
from pathlib import Path
from typing import Any

import nltk.data
from nltk.corpus import wordnet
from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

# The variable in which WordNet's own programs look, and the folder of Debian's package.
_VARIABLE, _DEBIAN = "WNSEARCHDIR", "/usr/share/wordnet"
_TOPICS = 45  # Lines of the file "lexnames", which the package does not have.


class Absent(Exception):
    """A part that a metric needs is not available; the message says how to get it."""


class Synonyms:
    """nltk's reader of WordNet as METEOR uses it, with a cache."""

    def __init__(self, reader: WordNetCorpusReader, source: str):
        """Takes a reader and, for reports, the name of the files that it reads."""
        self._reader, self.source = reader, source
        self._found: dict[str, list[Synset]] = {}

    def synsets(self, word: str) -> list[Synset]:
        """The meanings of a word; each has the list of words that share it."""
        if word not in self._found:
            # The reader is not annotated, and its inferred type is too wide.
            found: Any = self._reader.synsets(word)
            self._found[word] = found
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
            "WordNet is not installed: `python -m nltk.downloader wordnet`, or "
            f"Debian's package wordnet-base, or {_VARIABLE}=folder with data.noun"
        )
    # nltk opens files in the folders of this list only.
    nltk.data.path.append(str(folder))
    try:
        with warnings.catch_warnings():
            # nltk warns that it cannot map other languages, which METEOR does not use.
            warnings.simplefilter("ignore")
            return Synonyms(_ReleasedFiles(str(folder), None), "WordNet's own files")
    except (OSError, ValueError, LookupError, AssertionError) as error:
        raise Absent(f"WordNet in {folder} cannot be read ({error})") from error


class _ReleasedFiles(WordNetCorpusReader):
    """WordNet's own files, without the two files that only nltk's copy has."""

    def open(self, file: str) -> Any:
        """Opens a file of the dictionary.

        The names of topics are made up: METEOR never reads them.
        """
        if file == "lexnames":
            return io.StringIO("".join(f"{i:02d} {i} 0\n" for i in range(_TOPICS)))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """No map to the numbers of another version, which other languages need."""
