"""What one client may ask of the server, and what all of them together may."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds; what is beyond one is refused in a sentence that names it.

    Attributes:
      body_bytes: of a request, with its songs in base64.
      held_bytes: of all requests whose bodies are in memory.
      body_seconds: for a whole body to arrive.
      songs: in one conversation.
      song_seconds: of one song, as it is decoded.
      answer_seconds: from the end of the body to the last token.
      requests_per_minute: of one address; 0 for no limit.
      queue: questions that wait for a row.
      shutdown_seconds: that answers have at the end of the server.
    """

    body_bytes: int
    held_bytes: int
    body_seconds: float
    songs: int
    song_seconds: float
    answer_seconds: float
    requests_per_minute: int
    queue: int
    shutdown_seconds: float
