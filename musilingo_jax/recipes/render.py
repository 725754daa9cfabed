r"""Plays composed pieces with a soundfont: a corpus folder, or arrays to train on.

    python -m musilingo_jax.recipes.render --out runs/corpus --clips 300 --seed 7 \
        --soundfont FluidR3_GM.sf2 --soundfont MuseScore_General_Lite.sf3 --seconds 10

writes clips/00000.ogg … and songs.jsonl with captions, questions and answers. Clip `i`
of seed `s` is `compose(np.random.default_rng([s, i]), duration=seconds)`, always.
"""

import functools
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
from absl import flags
from jaxtyping import Float

from musilingo_jax.corpora import questions
from musilingo_jax.corpora.synthetic import ATTRIBUTES, LEAD, Piece, compose
from musilingo_jax.recipes.soundfont import CHANNELS, Waveform, level, render
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError

SAMPLE_RATE = 24_000
# Vorbis is asked for a quality, not a rate; the lowest: about 30 kbit/s.
VORBIS_COMPRESSION = 1.0
BLOCK = 64  # clips rendered, and kept when interrupted, together


def equaliser(
    frequency: Float[np.ndarray, " bins"], rng: np.random.Generator, *, spread: float
) -> Float[np.ndarray, " bins"]:
    """A smooth random response in decibels, of so much standard deviation."""
    octaves = np.log2(np.maximum(frequency, 20) / 20)
    knots = np.linspace(0, octaves[-1], 6)
    return np.interp(octaves, knots, rng.normal(0, spread, len(knots)))


def colour(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """The same notes on an instrument of another make: a strong random equaliser."""
    size = scipy.fft.next_fast_len(len(waveform), real=True)
    frequency = scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    response = 10 ** (equaliser(frequency, rng, spread=6) / 20)
    spectrum = scipy.fft.rfft(waveform, size) * response
    return scipy.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def augment(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Another room, microphone and level for the same performance, not shifted in time.

    Gain, a smooth equaliser, often a low-pass as lossy codecs have it, a short
    reverberation, and a floor of noise. All but the noise is one product of spectra.
    """
    size = scipy.fft.next_fast_len(len(waveform) + SAMPLE_RATE // 2, real=True)
    frequency = scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    decibels = equaliser(frequency, rng, spread=3)
    if rng.random() < 0.4:
        cutoff = np.exp(rng.uniform(np.log(3000), np.log(11_000)))
        decibels -= 24 * np.maximum(np.log2(np.maximum(frequency, 1) / cutoff), 0)
    response = 10 ** (decibels / 20)
    if rng.random() < 0.6:
        # Decaying noise after the direct sound: the simplest room.
        seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        tail = rng.standard_normal(len(seconds)) * np.exp(
            -seconds / rng.uniform(0.02, 0.12)
        )
        tail *= rng.uniform(0.05, 0.5) / np.sqrt(np.square(tail).sum())
        tail[0] += 1
        response = response * scipy.fft.rfft(tail, size)
    spectrum = scipy.fft.rfft(waveform, size) * response
    sound = level(scipy.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32))
    noise = rng.standard_normal(len(sound), dtype=np.float32)
    sound += noise * np.float32(0.1 * 10 ** (rng.uniform(-65, -28) / 20))
    sound *= np.float32(10 ** (rng.uniform(-12, 0) / 20))
    return np.clip(sound, -1, 1)


def clip(
    *,
    seed: int,
    index: int,
    soundfonts: Sequence[str],
    duration: float,
    augmented: bool,
) -> tuple[Piece, Waveform, int]:
    """Clip `index` of a seed: piece, waveform at 24 kHz, place of its lead's soundfont.

    One soundfont plays a plain clip. In an augmented one each part has its own, and an
    equaliser of its own, and the drums are tuned: more bands than there are files.
    """
    piece = compose(np.random.default_rng([seed, index]), duration=duration)
    rng = np.random.default_rng([seed, index, 1])  # the piece's own is spent above
    count = len(soundfonts)
    if not augmented:
        font = int(rng.integers(count))
        waveform = render(
            piece,
            dict.fromkeys(CHANNELS, soundfonts[font]),
            sample_rate=SAMPLE_RATE,
            drum_tuning=0.0,
            colour=lambda part: part,
        )
        return piece, waveform, font
    fonts = rng.integers(count, size=len(CHANNELS))
    waveform = render(
        piece,
        {c: soundfonts[font] for c, font in zip(CHANNELS, fonts, strict=True)},
        sample_rate=SAMPLE_RATE,
        drum_tuning=rng.uniform(-3, 3),
        colour=functools.partial(colour, rng=rng),
    )
    return piece, augment(waveform, rng), int(fonts[CHANNELS.index(LEAD)])


def write_set(
    folder: str | Path,
    *,
    clips: int,
    seed: int,
    soundfonts: Sequence[str],
    duration: float,
    augment: bool,
    processes: int,
) -> None:
    """Renders a training set into a folder; the same call resumes after any kill.

    Writes `waveform.npy` (int16 [clips, samples], open it with `mmap_mode="r"`),
    `labels.npz` (for each of `ATTRIBUTES` int8 [clips], a place in its values;
    `soundfont`, the place of the clip's) and `set.json`, the arguments. Frame targets
    are cheap: compose the piece again from `[seed, index]`.

    Raises:
      UserError: if the folder holds a set of other arguments.
    """
    folder = Path(folder)
    (folder / "blocks").mkdir(parents=True, exist_ok=True)
    settings = {
        "clips": clips,
        "seed": seed,
        "duration": duration,
        "augment": augment,
        "soundfonts": [Path(path).name for path in soundfonts],
    }
    record = folder / "set.json"
    if record.exists() and json.loads(record.read_text()) != settings:
        raise UserError(
            f"{record} describes another set than the one asked for ({settings}); "
            "choose another folder or delete this one"
        )
    record.write_text(json.dumps(settings))
    samples = round(duration * SAMPLE_RATE)
    path = folder / "waveform.npy"
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.int16, (clips, samples)).flush()
    begins = range(0, clips, BLOCK)
    missing = [b for b in begins if not _block(folder, b).exists()]
    job = functools.partial(
        _render_block,
        folder=folder,
        clips=clips,
        seed=seed,
        soundfonts=list(soundfonts),
        duration=duration,
        augmented=augment,
    )
    with cli.progress(
        total=clips,
        initial=max(clips - len(missing) * BLOCK, 0),
        unit="clip",
        label="rendering",
    ) as bar:
        for count in _each(job, missing, processes):
            bar.update(count)
    parts = [dict(np.load(_block(folder, begin))) for begin in begins]
    labels = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(folder / "labels.npz", **labels)


def _block(folder, begin):
    """The labels of a block; the file is there once its sound is."""
    return folder / "blocks" / f"{begin:06d}.npz"


def _each(job, items, processes):
    """Results of the job as they are done, over processes if more than one."""
    if processes == 1:
        yield from map(job, items)
        return
    # Forked children of a process that has used JAX may hang; fresh ones do not.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(job, items)


def _render_block(begin, *, folder, clips, seed, soundfonts, duration, augmented):
    waveforms = np.load(folder / "waveform.npy", mmap_mode="r+")
    indices = range(begin, min(begin + BLOCK, clips))
    labels = {name: [] for name in (*ATTRIBUTES, "soundfont")}
    for index in indices:
        piece, waveform, font = clip(
            seed=seed,
            index=index,
            soundfonts=soundfonts,
            duration=duration,
            augmented=augmented,
        )
        waveforms[index] = np.round(waveform * 32767).astype(np.int16)
        for name, value in piece.label_indices().items():
            labels[name].append(value)
        labels["soundfont"].append(font)
    waveforms.flush()
    path = _block(folder, begin)
    unfinished = path.with_suffix(".tmp.npz")
    np.savez(unfinished, **{name: np.int8(values) for name, values in labels.items()})
    os.replace(unfinished, path)
    return len(indices)


def write_corpus(
    folder: str | Path,
    *,
    clips: int,
    seed: int,
    soundfonts: Sequence[str],
    duration: float,
    test_share: float,
) -> None:
    """Writes a corpus folder: clips/*.ogg and songs.jsonl.

    The sound and the text are the same every time; the bytes of an .ogg are not, since
    the encoder numbers each stream at random.

    Of each clip: two captions, a short question on each attribute, two long questions.
    Test clips are spread evenly: the split of a clip depends on its index alone.
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
        )
        name = f"clips/{index:05d}.ogg"
        _write_vorbis(folder / name, waveform)
        test = int((index + 1) * test_share) > int(index * test_share)
        about = {"audio": name, "split": "test" if test else "train"}
        rng = np.random.default_rng([seed, index, 2])
        for _ in range(2):
            rows.append({**about, "answer": questions.caption(piece, rng)})
        for question, answer, attribute, value in questions.short(piece, rng):
            named = {"attribute": attribute, "value": value}
            rows.append({**about, "question": question, "answer": answer, **named})
        for question, answer in questions.long(piece, rng)[:2]:
            rows.append({**about, "question": question, "answer": answer})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "songs.jsonl").write_text(text)


def _write_vorbis(path, waveform):
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
    del argv
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
    # Not at the top, as in other programs: this file is also imported by some of them,
    # and spawned processes read it again.
    flags.DEFINE_string("out", None, "the corpus folder to write", required=True)
    flags.DEFINE_integer("clips", None, "how many clips", 1, required=True)
    flags.DEFINE_integer("seed", None, "which clips", 0, required=True)
    flags.DEFINE_multi_string(
        "soundfont", None, "a .sf2 or .sf3 file; repeat for more timbres", required=True
    )
    flags.DEFINE_float("seconds", None, "length of a clip", 1.0, required=True)
    flags.DEFINE_float("test_share", 0.2, "share of clips in the test split", 0.0, 1.0)
    cli.run(main)
