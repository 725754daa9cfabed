"""What the model heard of a song."""

from dataclasses import dataclass

from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.runtime.printable import printable


@dataclass(frozen=True)
class Excerpt:
    """The part of a song that the model heard.

    Attributes:
      name: of the song: its path as it was given, or what it is called.
      start, stop: where the excerpt begins and ends, in seconds.
      seconds: the length of the whole song.
      silent: whether all of the excerpt is silence.
      notices: what the listener should know: clauses whose subject is the song.
      features: pooled features of the excerpt.
      windows: where each of its windows begins and ends, in seconds, if they are spread
        over the song with gaps between them; () if it is one stretch.
    """

    name: str
    start: float
    stop: float
    seconds: float
    silent: bool
    notices: tuple[str, ...]
    features: Features
    windows: tuple[tuple[float, float], ...] = ()

    def __str__(self) -> str:
        """One line for what was heard, and one for each notice."""
        heard = f"{clock(self.start)}–{clock(self.stop)} of {clock(self.seconds)}"
        if self.windows:
            length = self.windows[0][1] - self.windows[0][0]
            begins = ", ".join(clock(start) for start, _ in self.windows)
            heard = (
                f"{len(self.windows)} windows of {length:.1f} s, spread over "
                f"{clock(self.seconds)}: at {begins}"
            )
        silence = " (it is silent: expect no sensible answer)" if self.silent else ""
        lines = [f"heard {heard}{silence}", *self.notices]
        return printable("\n".join(f"{self.name}: {line}" for line in lines))


def clock(seconds: float) -> str:
    """Minutes and seconds: 75.2 → "01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
