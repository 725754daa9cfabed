"""A long song, described stretch by stretch: lines with times, and a summary."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Unpack

import numpy as np

from musilingo_jax.answering.config import Decoding
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.listener import Song, name_of, spread
from musilingo_jax.answering.model import CAPTION, Model
from musilingo_jax.answering.pending import Pending

# Stretches whose descriptions are on their way while the next one is listened to.
_AHEAD = 8


@dataclass(frozen=True)
class Line:
    """What is said of a stretch.

    Attributes:
      start, stop: where the stretch begins and ends, in seconds.
      text: its description.
    """

    start: float
    stop: float
    text: str


class Timeline:
    """Walks through a song as it is decoded; it is never in memory as a whole.

        timeline = Timeline(model, "opera.flac")
        for line in timeline.lines():
            print(line.start, line.text)
        print(timeline.summary())

    A stretch is as long as what the model heard at once in training.
    """

    def __init__(
        self,
        model: Model,
        song: Song,
        *,
        question: str = CAPTION,
        tell: Callable[[str], None] = lambda notice: None,
        **decoding: Unpack[Decoding],
    ):
        """Nothing is read yet.

        Args:
          model: what describes.
          song: the song.
          question: what is asked of each stretch, and of the whole.
          tell: gets what should be known of the song.
          **decoding: as of `Model.ask`.
        """
        self._model, self._song, self._question = model, song, question
        self._tell, self._decoding = tell, decoding
        self._windows: list[np.ndarray] = []
        self._seconds: list[float] = []
        self._last: Excerpt | None = None

    def lines(self) -> Iterator[Line]:
        """The lines, in order, each as soon as it is there.

        Raises:
          UserError: the song cannot be read; or as in `Model.ask`.
        """
        waiting: deque[tuple[Excerpt, Pending]] = deque()

        def line() -> Line:
            heard, pending = waiting.popleft()
            return Line(heard.start, heard.stop, pending.answer().text)

        for heard in self._model.listener.stretches(self._song, self._tell):
            self._windows.append(heard.features)
            self._seconds.append(heard.stop - heard.start)
            self._last = heard
            pending = self._model.submit(heard, self._question, **self._decoding)
            waiting.append((heard, pending))
            if len(waiting) > _AHEAD:
                yield line()
        while waiting:
            yield line()

    def summary(self) -> str:
        """A description of the whole song.

        From windows that are spread over it; where states of the encoder are heard,
        from their mean over the stretches, weighted by their length.

        Raises:
          ValueError: `lines` has not been read to its end.
        """
        if self._last is None:
            raise ValueError("read the lines first")
        listener = self._model.listener
        if listener.features.reduction == "layers":
            chosen = np.average(self._windows, axis=0, weights=self._seconds)
        else:
            windows = np.concatenate(self._windows)
            chosen = windows[spread(len(windows), listener.max_windows)]
        whole = replace(
            self._last, name=name_of(self._song), start=0.0, features=chosen
        )
        return self._model.ask(whole, self._question, **self._decoding)


def as_json(song: str, model: str, lines: Sequence[Line], summary: str) -> str:
    """One object: song, model, lines and summary."""
    content = {
        "song": song,
        "model": model,
        "lines": [asdict(line) for line in lines],
        "summary": summary,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_srt(lines: Sequence[Line], summary: str) -> str:
    """Subtitles in SubRip's format, which has no place for a summary."""
    del summary
    cues = [
        f"{number}\n{_stamp(line.start, ',')} --> {_stamp(line.stop, ',')}\n"
        f"{_one_line(line.text)}\n"
        for number, line in enumerate(lines, start=1)
    ]
    return "\n".join(cues)


def as_vtt(lines: Sequence[Line], summary: str) -> str:
    """WebVTT, with the summary as a note at the beginning."""
    # Both would end a note or a cue, or begin one.
    summary = _one_line(summary).replace("-->", "→")
    cues = [
        f"{_stamp(line.start, '.')} --> {_stamp(line.stop, '.')}\n"
        f"{_escaped(_one_line(line.text))}\n"
        for line in lines
    ]
    return "\n".join(["WEBVTT\n", f"NOTE {summary}\n", *cues])


def _stamp(seconds: float, mark: str) -> str:
    """3725.5 → "01:02:05,500"."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{mark}{thousandths:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """A text in which WebVTT sees no markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
