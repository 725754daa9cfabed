"""Music with known answers: short pieces composed from independent random attributes.

Style, lead, tempo, mode, tonic and drums are drawn uniformly and independently, so that
a model that ignores the sound stays at chance on each. Everything else varies freely:
progression, melody, register, programs, timing, where in a bar the clip begins.

A piece is notes, not sound; `recipes/soundfont.py` plays it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from musilingo_jax.corpora.facts import tempo_of
from musilingo_jax.corpora.styles import (
    ATTRIBUTES,
    DRUM_KEYS,
    FAMILIES,
    FAST_DRUMS,
    LEADS,
    MODES,
    PROGRESSIONS,
    RHYTHMS,
    SCALES,
    STYLES,
    TEMPI,
    TONICS,
    Style,
    StyleLayer,
)

LEAD, BASS, CHORDS, FIGURE, DRUMS = 0, 1, 2, 3, 9  # MIDI channels; General MIDI's drums

# Notes begin up to this many seconds before the clip, so that a clip can open in the
# middle of a note. The renderer plays this lead-in and discards it.
LEAD_IN = 1.0
NOTE = np.dtype(
    [
        ("start", "f8"),  # seconds; 0 is the beginning of the clip
        ("end", "f8"),
        ("pitch", "i4"),  # MIDI key
        ("velocity", "i4"),  # 1 to 127
        ("channel", "i4"),
    ]
)


# Beats per minute of pieces of any tempo.
ANY_TEMPO = (55.0, 205.0)
# Share of the rock pieces of any tempo that are drummed as metal is.
_FAST_DRUMS_SHARE = 0.6


@dataclass(frozen=True, eq=False)
class Piece:
    """A composed piece: its attributes, which are the answers, and its notes."""

    style: str
    lead: str
    tempo: str
    bpm: float
    tonic: int  # pitch class: 0 is C
    mode: str
    drums: bool
    duration: float  # seconds
    notes: np.ndarray  # of NOTE, ordered by start, from -LEAD_IN to duration
    programs: dict[int, int]  # channel → General MIDI program; without the drums
    levels: dict[int, float]  # channel → loudness in the mix, decibels below the lead
    beats: np.ndarray  # seconds of each beat within the clip
    downbeats: np.ndarray  # seconds of the first beat of each bar within the clip
    cents: float  # by which the whole recording is out of tune

    @property
    def key(self) -> str:
        """Tonic and mode, such as "A minor"."""
        return f"{TONICS[self.tonic]} {self.mode}"

    def labels(self) -> dict[str, str]:
        """The value of each attribute in `ATTRIBUTES`."""
        return {
            "style": self.style,
            "lead": self.lead,
            "tempo": self.tempo,
            "mode": self.mode,
            "key": self.key,
            "drums": ATTRIBUTES["drums"][0 if self.drums else 1],
        }

    def label_indices(self) -> dict[str, int]:
        """The place of each label in its tuple of `ATTRIBUTES`, as a class number."""
        labels = self.labels()
        return {name: ATTRIBUTES[name].index(labels[name]) for name in ATTRIBUTES}


@dataclass(frozen=True)
class _Chord:
    begin: int  # eighths since the first bar
    end: int
    degree: int  # of the scale, from 0
    tones: tuple[int, ...]  # pitch classes from the root up


def compose(
    rng: np.random.Generator, *, duration: float, any_tempo: bool = False
) -> Piece:
    """Composes a piece of `duration` seconds; a pure function of the generator.

    Args:
      rng: of all that is drawn.
      duration: in seconds.
      any_tempo: whether the tempo is anything that people play, as that of recordings
        is, and rock is often drummed as metal is; else the tempo is in one of the three
        ranges of `TEMPI`, with gaps between them.
    """
    style_name = str(rng.choice(ATTRIBUTES["style"]))
    lead = str(rng.choice(ATTRIBUTES["lead"]))
    tempo = str(rng.choice(ATTRIBUTES["tempo"]))
    mode = str(rng.choice(MODES))
    tonic = int(rng.integers(12))
    drums = bool(rng.random() < 0.5)
    style = STYLES[style_name]
    bpm = float(rng.uniform(*TEMPI[tempo]))
    pattern = style.drums
    if any_tempo:
        if style_name == "rock" and rng.random() < _FAST_DRUMS_SHARE:
            pattern = FAST_DRUMS[rng.integers(len(FAST_DRUMS))]
        bpm = float(np.exp(rng.uniform(*np.log(ANY_TEMPO))))
        tempo = tempo_of(bpm)
    # The clip begins anywhere in a bar; one bar before it is composed for the lead-in.
    bar_seconds = style.beats * 60 / bpm
    origin = -bar_seconds * (1 + rng.random())
    steps = 2 * style.beats * (int((duration - origin) / bar_seconds) + 2)
    chords = _harmony(rng, style, tempo, tonic, mode, steps)
    score = _Notation(rng, style, bpm, origin)
    programs = {
        BASS: int(rng.choice(style.bass.programs)),
        CHORDS: int(rng.choice(style.chords.programs)),
        LEAD: int(rng.choice(LEADS[lead][0])),
    }
    _melody(score, chords, LEADS[lead][1], tonic, mode)
    _bass(score, chords)
    _accompany(score, chords)
    if style.figure:
        programs[FIGURE] = int(rng.choice(style.figure.programs))
        _figure(score, chords, style.figure)
    if drums:
        _drums(score, steps, pattern)
    levels = {LEAD: 0.0, DRUMS: float(rng.uniform(-7, -2))}
    levels |= {BASS: float(rng.uniform(-6, -2))}
    levels |= {CHORDS: float(rng.uniform(-10, -5)), FIGURE: float(rng.uniform(-11, -6))}
    beats = origin + np.arange(steps // 2) * 60 / bpm
    inside = (beats >= 0) & (beats < duration)
    first = np.arange(len(beats)) % style.beats == 0
    return Piece(
        style=style_name,
        lead=lead,
        tempo=tempo,
        bpm=bpm,
        tonic=tonic,
        mode=mode,
        drums=drums,
        duration=duration,
        notes=score.notes(duration),
        programs=programs,
        levels=levels,
        beats=beats[inside],
        downbeats=beats[inside & first],
        cents=float(rng.uniform(-20, 20)),
    )


class _Notation:
    """Notes that are added in eighths and kept in seconds, timed as a player would."""

    def __init__(
        self, rng: np.random.Generator, style: Style, bpm: float, origin: float
    ):
        """An empty score.

        Args:
          rng: of all that is drawn while notes are added.
          style: of the piece.
          bpm: beats per minute.
          origin: seconds at which the first bar begins, before the clip.
        """
        self.rng, self.style, self.bpm, self.origin = rng, style, bpm, origin
        self.looseness = rng.uniform(0.001, 0.009)  # seconds
        self.rows: list[tuple[float, float, int, int, int]] = []

    def seconds(self, step: float) -> float:
        """The time of an eighth; swing delays the second one of each beat."""
        beat, rest = divmod(step, 2)
        swing = self.style.swing
        within = rest * swing if rest <= 1 else swing + (rest - 1) * (1 - swing)
        return self.origin + (beat + within) * 60 / self.bpm

    def add(
        self, channel: int, step: float, length: float, pitch: int, velocity: float
    ) -> None:
        """Adds a note; louder on the beat, and loudest on the first of the bar."""
        start = self.seconds(step) + self.rng.normal(0, self.looseness)
        end = max(self.seconds(step + length), start + 0.06)
        accent = 12 if step % (2 * self.style.beats) == 0 else 5 if step % 2 == 0 else 0
        velocity = int(np.clip(velocity + accent + self.rng.normal(0, 4), 20, 127))
        self.rows.append((start, end, pitch, velocity, channel))

    def notes(self, duration: float) -> np.ndarray:
        """The notes that begin in the clip or its lead-in, ordered by start."""
        rows = [row for row in self.rows if -LEAD_IN <= row[0] < duration - 0.03]
        notes = np.array(sorted(rows), dtype=NOTE)
        notes["end"] = np.minimum(notes["end"], duration)
        return notes


def _harmony(
    rng: np.random.Generator,
    style: Style,
    tempo: str,
    tonic: int,
    mode: str,
    steps: int,
) -> list[_Chord]:
    """Chords that fill `steps` eighths: one progression after another."""
    bar = 2 * style.beats
    # A slow clip has only three bars: two chords in each give it a cadence, too.
    halves = {"slow": 1.0, "medium": 0.5, "fast": 0.0}[tempo]
    span = bar // 2 if style.beats == 4 and rng.random() < halves else bar
    scale = SCALES[mode]
    size = 4 if style.voicing == "seventh" else 3
    degrees = []
    while len(degrees) * span < steps + 3 * bar:
        degrees += PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    # Clips may begin in the middle of a progression, but on a bar line.
    degrees = degrees[int(rng.integers(4)) // (bar // span) * (bar // span) :]
    chords = []
    for index in range(steps // span):
        degree = degrees[index]
        tones = [(tonic + scale[(degree + 2 * n) % 7]) % 12 for n in range(size)]
        if size == 4 and degree == 0 and mode == "minor":
            tones[3] = (tonic + 2) % 12  # a ninth: milder than the leading tone
        chords.append(_Chord(index * span, (index + 1) * span, degree, tuple(tones)))
    return chords


def _at(pitch_class: int, low: int) -> int:
    """The pitch of this class in the octave that begins at `low`."""
    return low + (pitch_class - low) % 12


def _onsets(
    bar: str, chords: list[_Chord], beats: int
) -> Iterator[tuple[_Chord, int, str, int]]:
    """Yields (chord, step, sign, eighths left) for each sign of a repeated bar."""
    for chord in chords:
        signs = [bar[step % (2 * beats)] for step in range(chord.begin, chord.end)]
        places = [n for n, sign in enumerate(signs) if sign != "."]
        for place, following in pairwise([*places, len(signs)]):
            yield chord, chord.begin + place, signs[place], following - place


def _bass(score: _Notation, chords: list[_Chord]) -> None:
    rng, layer = score.rng, score.style.bass
    low, bar = int(rng.integers(31, 36)), str(rng.choice(layer.bars))
    for chord, step, sign, left in _onsets(bar, chords, score.style.beats):
        root = _at(chord.tones[0], low)
        pitch = root
        if step != chord.begin and sign == "5":
            pitch = _at(chord.tones[2], root)
        elif sign == "o":
            pitch = root + 12
        elif step != chord.begin and sign == "w":
            pitch = _at(int(rng.choice(chord.tones[1:3])), root)
        score.add(BASS, step, min(layer.length, left), pitch, 86)


def _accompany(score: _Notation, chords: list[_Chord]) -> None:
    rng, layer = score.rng, score.style.chords
    low, bar = int(rng.integers(50, 57)), str(rng.choice(layer.bars))
    pattern = bar
    if layer.length >= 8:  # a held chord is struck again where the harmony changes
        span = chords[0].end - chords[0].begin
        pattern = "".join("x" if n % span == 0 else "." for n in range(len(bar)))
    for chord, step, _, left in _onsets(pattern, chords, score.style.beats):
        if score.style.voicing == "open":
            root = _at(chord.tones[0], low - 10)
            pitches = [root, _at(chord.tones[2], root), root + 12]
            pitches.append(_at(chord.tones[1], root + 12))
        elif score.style.voicing == "seventh":
            pitches = [_at(tone, low) for tone in chord.tones[1:]]
            pitches.append(_at(chord.tones[0], low - 6))
        else:
            pitches = [_at(tone, low) for tone in chord.tones]
        for pitch in pitches:
            score.add(CHORDS, step, min(layer.length, left), pitch, 78)


def _figure(score: _Notation, chords: list[_Chord], layer: StyleLayer) -> None:
    rng = score.rng
    low, bar = int(rng.integers(52, 60)), str(rng.choice(layer.bars))
    for chord, step, sign, _ in _onsets(bar, chords, score.style.beats):
        tones = sorted(_at(tone, low) for tone in chord.tones)
        tones.append(tones[0] + 12)
        length = min(layer.length, chord.end - step)
        score.add(FIGURE, step, length, tones[int(sign)], 80)


def _drums(score: _Notation, steps: int, pattern: tuple[tuple[int, str], ...]) -> None:
    """Repeats a bar of strokes: keys of the drum map, a sign for each part of it."""
    for key, signs in pattern:
        each = 2 * score.style.beats / len(signs)  # eighths
        for place in range(round(steps / each)):
            sign = signs[place % len(signs)]
            # A crash marks every other bar only; weak strokes are sometimes left out.
            if key == 49 and place // len(signs) % 2:
                continue
            if sign == "X" or (sign == "x" and score.rng.random() > 0.1):
                score.add(DRUMS, place * each, 1, key, 100 if sign == "X" else 76)


def _melody(
    score: _Notation,
    chords: list[_Chord],
    compass: tuple[int, int],
    tonic: int,
    mode: str,
) -> None:
    """A line of scale steps that is on a chord tone wherever a rhythm begins."""
    rng, style = score.rng, score.style
    low, high = compass
    window = int(rng.integers(low, high - 15 + 1))  # an octave and a bit of the compass
    pitches = np.arange(window, window + 16)
    scale = [p for p in pitches if (p - tonic) % 12 in SCALES[mode]]
    busy = rng.uniform(0.5, 4.5)  # the centre of the drawn rhythms
    pitch = int(rng.choice(scale))
    span = 6 if style.beats == 3 else 4
    for chord in chords:
        for begin in range(chord.begin, chord.end, span):
            rhythms = RHYTHMS[span]
            weights = np.exp(-(((np.arange(len(rhythms)) - busy) / 1.2) ** 2))
            rhythm = rhythms[rng.choice(len(rhythms), p=weights / weights.sum())]
            step = begin
            for length in rhythm:
                if step == begin:
                    # On the tonic chord, more often than not on the tonic itself.
                    home = chord.degree == 0 and rng.random() < 0.6
                    goals = chord.tones[:1] if home else chord.tones[:3]
                    near = [p for p in pitches if p % 12 in goals]
                    distance = [abs(p - pitch) + rng.uniform(0, 4) for p in near]
                    pitch = int(near[int(np.argmin(distance))])
                else:
                    place = int(np.argmin(np.abs(np.array(scale) - pitch)))
                    place += int(rng.choice((-2, -1, -1, 1, 1, 2)))
                    place = abs(place)  # turns back at either end
                    if place >= len(scale):
                        place = 2 * len(scale) - 2 - place
                    pitch = int(scale[place])
                if step == begin or rng.random() > 0.06:
                    score.add(LEAD, step, length * 0.93, pitch, 96)
                step += length


def frame_targets(
    piece: Piece, *, frames_per_second: float, frames: int
) -> dict[str, Float[np.ndarray, "frames classes"]]:
    """What sounds in each frame of a rendering; frame `i` begins at `i / rate` seconds.

    A moment between the centres of two frames is shared by the two:

        centres      0     1     2     3
        a beat at        1.25
        target       0    0.75  0.25   0

    Args:
      piece: what is rendered.
      frames_per_second: the rate.
      frames: how many.

    Returns:
      float32 in [0, 1]: `chroma`, `bass`, `melody` [12] (pitch classes that sound,
      without the drums), `onset`, `beat`, `downbeat` [1], `drums` [3] (strokes of kick,
      snare, hat) and `families` [leads] (instrument families that sound).
    """

    def moments(times: np.ndarray) -> np.ndarray:
        place = np.asarray(times) * frames_per_second - 0.5
        distance = np.abs(np.arange(frames)[:, None] - place)
        nearness = np.maximum(1 - distance, 0).astype(np.float32)
        # The strongest moment of a frame counts; a piece may have no moments at all.
        return nearness.max(axis=1, initial=0.0)[:, None]

    notes = piece.notes
    channel = notes["channel"]
    begin = np.clip(np.round(notes["start"] * frames_per_second), 0, frames).astype(int)
    end = np.clip(np.round(notes["end"] * frames_per_second), 0, frames).astype(int)
    members = list(FAMILIES.values())
    targets = {name: np.zeros((frames, 12), np.float32) for name in ("chroma", "bass")}
    targets["melody"] = np.zeros((frames, 12), np.float32)
    targets["families"] = np.zeros((frames, len(members)), np.float32)
    for n in np.flatnonzero(channel != DRUMS):
        sounding, pitch_class = slice(begin[n], end[n]), notes["pitch"][n] % 12
        targets["chroma"][sounding, pitch_class] = 1
        if channel[n] == BASS:
            targets["bass"][sounding, pitch_class] = 1
        if channel[n] == LEAD:
            targets["melody"][sounding, pitch_class] = 1
        program = piece.programs[int(channel[n])]
        for family, programs in enumerate(members):
            if program in programs:
                targets["families"][sounding, family] = 1
    targets["onset"] = moments(notes["start"])
    targets["beat"] = moments(piece.beats)
    targets["downbeat"] = moments(piece.downbeats)
    strokes = [
        moments(
            notes["start"][(channel == DRUMS) & np.isin(notes["pitch"], DRUM_KEYS[d])]
        )
        for d in DRUM_KEYS
    ]
    targets["drums"] = np.concatenate(strokes, axis=1)
    return targets
