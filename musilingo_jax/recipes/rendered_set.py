"""A set of rendered clips on disk, with its labels and frame targets, to train on."""

import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from musilingo_jax.corpora import synthetic
from musilingo_jax.corpora.facts import BEATS, beat_index
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.recipes import render
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

LABELS = {**ATTRIBUTES, "beats": BEATS}
"""What is known of a clip: the attributes, and the tempo as a number."""
CHROMA = slice(13, 25)
"""The columns of the frame targets that say which pitch classes sound."""
BLOCK = 64  # clips that are rendered together; interrupted blocks are rendered again


class RenderedSet:
    """What `write_set` wrote, and the frame targets of an encoder's frame rate.

    Attributes:
      waveform: int16 [clips, samples], read from disk as it is used.
      labels: int32 [clips] by name: places in its tuple of `LABELS`.
      targets: uint8 [clips, frames, targets]: frame targets of 0 to 1 as 0 to 255.
    """

    def __init__(self, folder: Path, *, frames: int, frames_per_second: float):
        """Opens a set; its frame targets are computed the first time, and kept.

        Args:
          folder: of the set.
          frames: that the encoder makes of a clip.
          frames_per_second: rate of the encoder's frames.
        """
        self.waveform = np.load(folder / "waveform.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npz")
        self.labels = {name: labels[name].astype(np.int32) for name in LABELS}
        stored = folder / f"targets-{frames}.npy"
        if not stored.exists():
            _write_targets(stored, frames, frames_per_second)
        self.targets = np.load(stored, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.waveform)

    def batch(
        self, rows: Int[np.ndarray, " rows"]
    ) -> tuple[
        Float[np.ndarray, "rows samples"],
        dict[str, Int[np.ndarray, " rows"]],
        Float[np.ndarray, "rows frames targets"],
    ]:
        """Waveforms, labels and frame targets of some clips, in the set's order."""
        rows = np.sort(rows)
        return (
            self.waveform[rows].astype(np.float32) / 32768,
            {name: values[rows] for name, values in self.labels.items()},
            self.targets[rows].astype(np.float32) / 255,
        )


def _write_targets(path: Path, frames: int, frames_per_second: float) -> None:
    """Composes the pieces of a set again, and writes their frame targets."""
    settings = read_json(path.parent / "set.json")
    clips, rows = settings["clips"], []
    for index in cli.progress(range(clips), total=clips, unit="clip", label="targets"):
        piece = synthetic.compose(
            np.random.default_rng([settings["seed"], index]),
            duration=settings["duration"],
            any_tempo=_any_tempo(settings["augment"], index),
        )
        targets = synthetic.frame_targets(
            piece, frames_per_second=frames_per_second, frames=frames
        )
        side_by_side = np.concatenate([targets[name] for name in sorted(targets)], 1)
        rows.append(np.round(255 * side_by_side).astype(np.uint8))
    with storage.atomic(path) as partial, partial.open("wb") as file:
        np.save(file, np.stack(rows))


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
    """Renders clips into a folder; the same call resumes after any interruption.

    Writes `waveform.npy` (int16 [clips, samples]), `labels.npz` (int8 [clips] for each
    of `LABELS`, and `soundfont`, the place of the one that plays the lead) and
    `set.json`, the arguments.

    Args:
      folder: where to write.
      clips: how many.
      seed: clip `i` is `render.clip(seed=seed, index=i)`.
      soundfonts: files that play the clips.
      duration: seconds of each clip.
      augment: whether clips are augmented, as in `render.clip`; of those that are,
        every other has any tempo, as in `synthetic.compose`.
      processes: how many render at the same time.

    Raises:
      UserError: the folder holds a set of other arguments, or as in `render.clip`.
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
    if record.exists() and read_json(record) != settings:
        raise UserError(
            f"{record} describes a set with other settings than these: {settings}; "
            "choose another folder, or delete this one"
        )
    storage.write_text(record, json.dumps(settings))
    path = folder / "waveform.npy"
    if not path.exists():
        shape = (clips, round(duration * render.SAMPLE_RATE))
        np.lib.format.open_memmap(path, "w+", np.int16, shape).flush()
    begins = range(0, clips, BLOCK)
    missing = [begin for begin in begins if not _block(folder, begin).exists()]
    job = functools.partial(
        _render_block,
        folder=folder,
        block=BLOCK,
        clips=clips,
        seed=seed,
        soundfonts=list(soundfonts),
        duration=duration,
        augment=augment,
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
    _write_labels(folder / "labels.npz", labels)


def _block(folder: Path, begin: int) -> Path:
    """The labels of a block; the file exists once the block's sound is written."""
    return folder / "blocks" / f"{begin:06d}.npz"


def _each(
    job: Callable[[int], int], items: Sequence[int], processes: int
) -> Iterator[int]:
    """The results of a job in the order in which they are done."""
    if processes == 1:
        yield from map(job, items)
        return
    # Forked children of a process that has used JAX may hang; fresh ones do not.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(job, items)


def _render_block(
    begin: int,
    *,
    folder: Path,
    block: int,
    clips: int,
    seed: int,
    soundfonts: Sequence[str],
    duration: float,
    augment: bool,
) -> int:
    """Renders the clips from `begin` on, and returns how many they are."""
    waveforms = np.load(folder / "waveform.npy", mmap_mode="r+")
    indices = range(begin, min(begin + block, clips))
    labels: dict[str, list[int]] = {name: [] for name in (*LABELS, "soundfont")}
    for index in indices:
        piece, waveform, font = render.clip(
            seed=seed,
            index=index,
            soundfonts=soundfonts,
            duration=duration,
            augmented=augment,
            any_tempo=_any_tempo(augment, index),
        )
        waveforms[index] = np.round(waveform * 32767).astype(np.int16)
        for name, value in piece.label_indices().items():
            labels[name].append(value)
        labels["beats"].append(beat_index(piece.bpm))
        labels["soundfont"].append(font)
    waveforms.flush()
    arrays = {name: np.array(values, np.int8) for name, values in labels.items()}
    _write_labels(_block(folder, begin), arrays)
    return len(indices)


def _any_tempo(augment: bool, index: int) -> bool:
    return augment and index % 2 == 1


def _write_labels(path: Path, labels: dict[str, Any]) -> None:
    with storage.atomic(path) as partial, partial.open("wb") as file:
        np.savez(file, **labels)
