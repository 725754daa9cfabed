"""What one person may ask of the page, and how many may use it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds; what is beyond one is refused in a sentence.

    Attributes:
      song_bytes: of one upload.
      song_seconds: of one song.
      songs: of one conversation.
      letters: of one question.
      people: conversations that are kept; the one that was silent longest is forgotten.
    """

    song_bytes: int
    song_seconds: float
    songs: int
    letters: int
    people: int
