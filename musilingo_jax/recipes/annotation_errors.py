r"""How often each estimator of `annotation/` is wrong, on music with known answers.

    python -m musilingo_jax.recipes.annotation_errors --clips=200 --seed=9 \
        --seconds=20 --soundfont=build/soundfonts/TimGM6mb.sf2
    python -m musilingo_jax.recipes.annotation_errors --charts=build/music --seconds=60

The first composes and renders clips (`corpora/synthetic.py`), annotates them, and
prints a table: ours, librosa's own where it has one, and the constant answer that is
right most often on these very clips. Composed music is easier than recordings: its
beats do not move, and its harmony is plain. The second measures tempi only, of
recordings with charts that players of a game follow, and of slowed copies of them.

    key        share of clips; and MIREX's score, in which near keys count in part
    tempo      Acc1: within 4 %. Acc2: also two or three times as fast, or as slow
    beats      F-measure, within 70 ms (`mir_eval.beat`), mean over clips
    downbeats  the same; without an estimator: every fourth beat of librosa's
    metre      share of clips; and the mean of the shares in 3 and in 4
    chords     share of the time whose triad is named; other chords do not count
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import mir_eval
import numpy as np

from musilingo_jax.annotation import bars, beats, chords, keys
from musilingo_jax.annotation.keys import NOTES
from musilingo_jax.annotation.spectra import RATE, Spectra
from musilingo_jax.corpora.statements.tempos import Tempo
from musilingo_jax.corpora.styles import STYLES
from musilingo_jax.corpora.synthetic import BASS, CHORDS, Piece
from musilingo_jax.evaluation.metrics import tempo as tempo_metric
from musilingo_jax.recipes import measured_songs, render
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError

OURS, THEIRS, CONSTANT = "ours", "librosa", "a constant"
Scores = dict[tuple[str, str], list[float]]
"""(measure, whose) → a score of each clip."""


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog="python -m musilingo_jax.recipes.annotation_errors", description=__doc__
    )
    music = parser.add_mutually_exclusive_group(required=True)
    music.add_argument("--clips", metavar="N", type=positive, help="composed clips")
    music.add_argument(
        "--charts",
        metavar="FOLDER",
        type=nonempty,
        help="songs with a chart, as `musilingo_jax.recipes.recordings` fetches them",
    )
    parser.add_argument(
        "--seed", metavar="N", type=positive, help="of what is composed"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=float, required=True, help="of each clip"
    )
    parser.add_argument(
        "--soundfont",
        metavar="FILE",
        type=nonempty,
        action="append",
        help="plays composed clips; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    return parser


def main(given: argparse.Namespace) -> None:
    """Prints the table that the flags describe.

    Raises:
      UsageError: the flags do not go together.
      UserError: as in `measure` and `measure_charts`.
    """
    composes = given.clips is not None
    for name in ("seed", "soundfont"):
        if composes != (getattr(given, name) is not None):
            raise UsageError(f"--{name} is for --clips, which needs it")
    if composes:
        count = given.clips
        scores = measure(
            clips=count,
            seed=given.seed,
            seconds=given.seconds,
            soundfonts=given.soundfont,
        )
    else:
        scores, count = measure_charts(Path(given.charts), seconds=given.seconds)
    if given.json:
        rows = [
            {"measure": measure, "of": whose, "score": round(mean, 4)}
            for (measure, whose), mean in scores.items()
        ]
        print(json.dumps({"clips": count, "scores": rows}))
        return
    print(f"{'measure':<18}{OURS:>12}{THEIRS:>12}{CONSTANT:>12}")
    for name in dict.fromkeys(measure for measure, _ in scores):
        cells = (scores.get((name, whose)) for whose in (OURS, THEIRS, CONSTANT))
        text = "".join("–".rjust(12) if c is None else f"{c:12.3f}" for c in cells)
        print(f"{name:<18}{text}")


def measure(
    *, clips: int, seed: int, seconds: float, soundfonts: Sequence[str]
) -> dict[tuple[str, str], float]:
    """The scores of all estimators.

    Args:
      clips: how many are composed.
      seed: clip `i` is `render.clip(seed=seed, index=i)`.
      seconds: of each clip.
      soundfonts: files that play them.

    Returns:
      (measure, whose) → the mean over clips.

    Raises:
      UserError: as in `render.clip`.
    """
    scores: Scores = defaultdict(list)
    pieces: list[Piece] = []
    triads: list[list[chords.Chord]] = []
    bar = cli.progress(range(clips), total=clips, unit="clip", label="measuring")
    for index in bar:
        piece, waveform, _ = render.clip(
            seed=seed,
            index=index,
            soundfonts=soundfonts,
            duration=seconds,
            augmented=False,
        )
        pieces.append(piece)
        triads.append(true_triads(piece))
        _score(scores, piece, triads[-1], _spectra(waveform))
    _score_constants(scores, pieces, triads)
    return {pair: float(np.mean(each)) for pair, each in scores.items() if each}


def measure_charts(
    music: Path, *, seconds: float
) -> tuple[dict[tuple[str, str], float], int]:
    """The scores of the tempi of recordings with charts, and of slowed copies.

    Args:
      music: as `recordings.fetch` fills it.
      seconds: of each copy.

    Returns:
      As `measure`; and how many copies there are.

    Raises:
      UserError: as in `measured_songs.charted`.
    """
    scores: Scores = defaultdict(list)
    true: list[float] = []
    for copy in measured_songs.charted(music, seconds):
        found = beats.find(_spectra(copy.waveform))
        true.append(copy.bpm)
        for whose, bpm in ((OURS, found.bpm), (THEIRS, found.tracker_bpm)):
            _add_tempo(scores, whose, bpm, copy.bpm)
    always = _best_tempo(true)
    for bpm in true:
        _add_tempo(scores, CONSTANT, always, bpm)
    return {pair: float(np.mean(each)) for pair, each in scores.items()}, len(true)


def _best_tempo(true: Sequence[float]) -> float:
    """The whole number that is right of the most tempi."""
    tempi = [float(bpm) for bpm in range(60, 211)]
    hits = [
        sum(tempo_metric.accuracy(Tempo(t, t), bpm)[0] for bpm in true) for t in tempi
    ]
    return tempi[int(np.argmax(hits))]


def _spectra(waveform: np.ndarray) -> Spectra:
    import soxr

    resampled = soxr.resample(waveform, render.SAMPLE_RATE, RATE)
    return Spectra(resampled.astype(np.float32))


def _score(
    scores: Scores, piece: Piece, triads: list[chords.Chord], spectra: Spectra
) -> None:
    """Adds the scores of what is estimated of a clip."""
    found = beats.find(spectra)
    barred = bars.find(spectra, found.times)
    name = keys.find(spectra).name
    scores["key", OURS].append(name == _key(piece))
    scores["key, MIREX", OURS].append(_mirex(name, piece))
    for whose, bpm in ((OURS, found.bpm), (THEIRS, found.tracker_bpm)):
        _add_tempo(scores, whose, bpm, piece.bpm)
    scores["beats", THEIRS].append(_f_measure(piece.beats, found.times))
    scores["downbeats", OURS].append(_f_measure(piece.downbeats, barred.downbeats))
    scores["downbeats", THEIRS].append(_f_measure(piece.downbeats, found.times[::4]))
    _add_metre(scores, OURS, barred.metre, piece)
    estimated = chords.find(spectra, found.times)
    if triads:
        scores["chords", OURS].append(overlap(triads, estimated))


def _score_constants(
    scores: Scores, pieces: Sequence[Piece], triads: Sequence[list[chords.Chord]]
) -> None:
    """Adds the scores of the best constant answers."""
    key = Counter(map(_key, pieces)).most_common(1)[0][0]
    tempo = _best_tempo([piece.bpm for piece in pieces])
    metre = Counter(STYLES[p.style].beats for p in pieces).most_common(1)[0][0]
    times: dict[str, float] = defaultdict(float)
    for chord in (chord for each in triads for chord in each):
        times[chord.name] += chord.end - chord.start
    for piece, truth in zip(pieces, triads, strict=True):
        scores["key", CONSTANT].append(key == _key(piece))
        scores["key, MIREX", CONSTANT].append(_mirex(key, piece))
        _add_tempo(scores, CONSTANT, tempo, piece.bpm)
        _add_metre(scores, CONSTANT, metre, piece)
        if truth:
            most = max(times, key=lambda name: times[name])
            always = [chords.Chord(0.0, piece.duration, most, 1.0)]
            scores["chords", CONSTANT].append(overlap(truth, always))


def _add_tempo(scores: Scores, whose: str, bpm: float, true: float) -> None:
    first, second = tempo_metric.accuracy(Tempo(bpm, bpm), true)
    scores["tempo, Acc1", whose].append(first)
    scores["tempo, Acc2", whose].append(second)


def _add_metre(scores: Scores, whose: str, metre: int, piece: Piece) -> None:
    true = STYLES[piece.style].beats
    scores["metre", whose].append(metre == true)
    scores[f"metre, of {true}/4", whose].append(metre == true)


def _key(piece: Piece) -> str:
    return f"{NOTES[piece.tonic]} {piece.mode}"


def _mirex(name: str, piece: Piece) -> float:
    return mir_eval.key.weighted_score(_key(piece), name) if name else 0.0


def _f_measure(true: np.ndarray, found: np.ndarray) -> float:
    if not len(true) or not len(found):
        return 0.0
    return float(mir_eval.beat.f_measure(true, np.asarray(found)))


def overlap(true: Iterable[chords.Chord], found: Sequence[chords.Chord]) -> float:
    """The share of the time of some true chords in which they are named."""
    named = total = 0.0
    for chord in true:
        total += chord.end - chord.start
        for other in found:
            if other.name == chord.name:
                named += max(
                    0, min(chord.end, other.end) - max(chord.start, other.start)
                )
    return named / total if total else 0.0


def true_triads(piece: Piece) -> list[chords.Chord]:
    """The major and minor triads of a piece, from its notes.

    The harmony changes on a bar line or, in bars of four, in their middle. The chords
    of such a stretch are what the accompaniment plays in it: three pitch classes name
    their triad; of four, the bass says which is the root. Diminished chords, and the
    first stretch where its root was before the clip, are left out.
    """
    spans = _spans(piece)
    found: list[chords.Chord] = []
    for number, (start, end, classes) in enumerate(spans):
        roots = [
            root for root in sorted(classes) if _quality(root, classes) is not None
        ]
        if len(classes) > 3:
            bass = _bass(piece, start, end)
            roots = [bass] if number and bass in roots else []
        if roots:
            name = f"{NOTES[roots[0]]} {_quality(roots[0], classes)}"
            first, last = max(start, 0.0), min(end, piece.duration)
            found.append(chords.Chord(first, last, name, 1.0))
    return found


def _spans(piece: Piece) -> list[tuple[float, float, frozenset[int]]]:
    """Stretches and the accompaniment's pitch classes; equal neighbours as one."""
    beat = 60 / piece.bpm
    size = (2 if STYLES[piece.style].beats == 4 else 3) * beat
    origin = piece.downbeats[0] if len(piece.downbeats) else 0.0
    first = int(np.ceil(origin / size))
    edges = origin + size * np.arange(-first, (piece.duration - origin) / size + 1)
    notes = piece.notes[piece.notes["channel"] == CHORDS]
    spans: list[tuple[float, float, frozenset[int]]] = []
    for start in edges[edges < piece.duration]:
        inside = (notes["start"] > start - 0.04) & (
            notes["start"] < start + size - 0.04
        )
        classes = frozenset(int(p) % 12 for p in notes["pitch"][inside])
        if spans and (not classes or classes == spans[-1][2]):
            spans[-1] = (spans[-1][0], start + size, spans[-1][2])
        elif classes:
            spans.append((start, start + size, classes))
    return spans


def _quality(root: int, classes: frozenset[int]) -> str | None:
    """Whether a pitch class is the root of a major or minor triad among others."""
    degrees = {(tone - root) % 12 for tone in classes}
    return next(
        (
            name
            for name, third in (("major", 4), ("minor", 3))
            if {0, third, 7} <= degrees
        ),
        None,
    )


def _bass(piece: Piece, start: float, end: float) -> int | None:
    """The pitch class of the first bass note of a stretch."""
    notes = piece.notes[piece.notes["channel"] == BASS]
    inside = notes[(notes["start"] > start - 0.04) & (notes["start"] < end - 0.04)]
    return int(inside["pitch"][0]) % 12 if len(inside) else None


if __name__ == "__main__":
    cli.run(main, parser())
