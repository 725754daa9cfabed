r"""Renders a corpus of composed pieces with a soundfont: sound files and songs.jsonl.

    python -m musilingo_jax.recipes.render --out runs/corpus --clips 300 --seed 7 \
        --soundfont FluidR3_GM.sf2 --soundfont MuseScore_General_Lite.sf3 --seconds 10

writes clips/00000.ogg … and songs.jsonl with captions, questions and answers. Clip `i`
of seed `s` is `compose(np.random.default_rng([s, i]), duration=seconds)`, always.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from absl import flags

from musilingo_jax.corpora import fact_questions, questions, songs
from musilingo_jax.corpora.facts import beats_of
from musilingo_jax.corpora.synthetic import LEAD, Piece, compose
from musilingo_jax.recipes.augmentation import augment, recolour
from musilingo_jax.recipes.soundfont import (
    CHANNELS,
    KITS,
    SAMPLE_RATE,
    STANDARD_KIT,
    Waveform,
    render,
)
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UsageError

# Vorbis is asked for a quality, not a rate; this is the lowest: about 30 kbit/s.
VORBIS_COMPRESSION = 1.0


def clip(
    *,
    seed: int,
    index: int,
    soundfonts: Sequence[str],
    duration: float,
    augmented: bool,
    any_tempo: bool = False,
) -> tuple[Piece, Waveform, int]:
    """Renders clip `index` of a seed.

    One soundfont plays a plain clip. In an augmented one each part has its own, and an
    equaliser of its own, and the drums are tuned and of any kit: more bands than there
    are files.

    Returns:
      The piece; its waveform at 24 kHz; the place of the lead's soundfont in
      `soundfonts`.

    Raises:
      UserError: as in `soundfont.render`.
    """
    piece = compose(
        np.random.default_rng([seed, index]), duration=duration, any_tempo=any_tempo
    )
    rng = np.random.default_rng([seed, index, 1])  # the piece's own is spent above
    count = len(soundfonts)
    if not augmented:
        font = int(rng.integers(count))
        waveform = render(
            piece,
            dict.fromkeys(CHANNELS, soundfonts[font]),
            sample_rate=SAMPLE_RATE,
            drum_tuning=0.0,
            drum_kit=STANDARD_KIT,
            colour=lambda part: part,
        )
        return piece, waveform, font
    fonts = rng.integers(count, size=len(CHANNELS))
    waveform = render(
        piece,
        {c: soundfonts[int(n)] for c, n in zip(CHANNELS, fonts, strict=True)},
        sample_rate=SAMPLE_RATE,
        drum_tuning=rng.uniform(-3, 3),
        drum_kit=int(rng.choice(KITS)),
        colour=functools.partial(recolour, rng=rng),
    )
    return piece, augment(waveform, rng), int(fonts[CHANNELS.index(LEAD)])


def write_corpus(
    folder: str | Path,
    *,
    clips: int,
    seed: int,
    soundfonts: Sequence[str],
    duration: float,
    test_share: float,
    more: bool = False,
) -> None:
    """Writes a corpus folder: clips/*.ogg, and last of all songs.jsonl.

    The sound and the text are the same every time; the bytes of an .ogg are not, since
    the encoder numbers each stream at random.

    Args:
      folder: where to write.
      clips: how many.
      seed: as in `clip`.
      soundfonts: files that play the clips, one of them each clip.
      duration: seconds of each clip.
      test_share: share of the clips in the split "test"; the others are "train".
      more: whether every other clip has any tempo, and all are asked about what is
        asked of recordings: beats per minute, vocals.

    Raises:
      UserError: as in `soundfont.render`.
    """
    folder = Path(folder)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    label = "rendering"
    for index in cli.progress(range(clips), total=clips, unit="clip", label=label):
        piece, waveform, _ = clip(
            seed=seed,
            index=index,
            soundfonts=soundfonts,
            duration=duration,
            augmented=False,
            any_tempo=more and index % 2 == 1,
        )
        name = f"clips/{index:05d}.ogg"
        _write_vorbis(folder / name, waveform)
        about = {"audio": name, "split": split_of(index, test_share)}
        rows += [{**about, **row} for row in texts(piece, seed=seed, index=index)]
        if more:
            rows += [{**about, **row} for row in more_texts(piece, seed, index)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.write_text(folder / songs.FILE_NAME, text)


def split_of(index: int, test_share: float) -> str:
    """The split of a clip: test clips are spread evenly over the indices.

    With a share of 0.4:

        index    0      1      2     3      4     5      6      7
        split    train  train  test  train  test  train  train  test
    """
    test = int((index + 1) * test_share) > int(index * test_share)
    return "test" if test else "train"


def texts(piece: Piece, *, seed: int, index: int) -> list[dict[str, Any]]:
    """What songs.jsonl says about clip `index` of a seed, one dict a line.

    Two captions, a short question about each attribute, two long questions.
    """
    rng = np.random.default_rng([seed, index, 2])
    rows: list[dict[str, Any]] = [
        {"answer": questions.caption(piece, rng)} for _ in range(2)
    ]
    for question, answer, attribute, value in questions.short(piece, rng):
        named = {"attribute": attribute, "value": value}
        rows.append({"question": question, "answer": answer, **named})
    for question, answer in questions.long(piece, rng)[:2]:
        rows.append({"question": question, "answer": answer})
    return rows


def more_texts(piece: Piece, seed: int, index: int) -> list[dict[str, Any]]:
    """What else songs.jsonl says about clip `index`: beats per minute, vocals."""
    rng = np.random.default_rng([seed, index, 3])
    rows = []
    for fact in ("beats", "vocals"):
        question, answer, value = fact_questions.short(known_of(piece), fact, rng)
        named = {"attribute": fact, "value": value}
        rows.append({"question": question, "answer": answer, **named})
    return rows


def known_of(piece: Piece) -> dict[str, str]:
    """What the score of a composed piece says: it is played, and nobody sings."""
    return {
        **piece.labels(),
        "beats": beats_of(piece.bpm),
        "vocals": "no vocals",
        "sound": "music",
    }


def _write_vorbis(path: Path, waveform: Waveform) -> None:
    with soundfile.SoundFile(
        path,
        "w",
        samplerate=SAMPLE_RATE,
        channels=1,
        format="OGG",
        subtype="VORBIS",
        compression_level=VORBIS_COMPRESSION,
    ) as file:
        file.write(waveform)


def main(argv: list[str]) -> None:
    """Writes the corpus that the flags describe."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    values = flags.FLAGS
    write_corpus(
        values.out,
        clips=values.clips,
        seed=values.seed,
        soundfonts=values.soundfont,
        duration=values.seconds,
        test_share=values.test_share,
    )


if __name__ == "__main__":
    # Not at the top as in other programs: the recipe imports this module, and so do the
    # processes that it starts.
    flags.DEFINE_string("out", None, "folder of the corpus", required=True)
    flags.DEFINE_integer("clips", None, "how many clips to render", 1, required=True)
    flags.DEFINE_integer("seed", None, "seed of the composed pieces", 0, required=True)
    flags.DEFINE_multi_string(
        "soundfont", None, "a .sf2 or .sf3 file; may be repeated", required=True
    )
    flags.DEFINE_float("seconds", None, "length of a clip", 1.0, required=True)
    flags.DEFINE_float("test_share", 0.2, "share of clips in the test split", 0.0, 1.0)
    cli.run(main)
