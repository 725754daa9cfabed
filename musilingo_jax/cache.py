"""Features by song: the frozen encoder hears each song once, not once per epoch.

    python -m musilingo_jax.cache --config=configs/tiny.py

encodes the songs that the cache lacks. Kill it whenever you like: it goes on with the
shard that was not finished, and ends with the same bits as if nobody had stopped it.
Files are decoded on threads while the encoder works.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax import audio, cli, shards, weights
from musilingo_jax.corpora import songs
from musilingo_jax.errors import UsageError, UserError
from musilingo_jax.features import FeatureConfig, encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.sharding import make_mesh

FORMAT = 1
_REMEDY = "run `python -m musilingo_jax.cache --config=…` with the same config"
# A shard is full with the first of the two: the work that a kill can cost.
SHARD_SECONDS = 3600.0
SHARD_CLIPS = 1024
# Shards open at once, well below the usual limit of 1024 files per process.
_OPEN_SHARDS = 128


class Clip(NamedTuple):
    """A song to encode: `id` tells these contents of the file at `path` from others."""

    id: str
    path: Path


@dataclass(frozen=True)
class Identity:
    """All that features depend on, besides the sound.

    Attributes:
      encoder: digest of the encoder's files.
      sample_rate: of the waveforms that it heard.
      window_frames, chunk_windows: as in `FeatureConfig`.
      dtype: of the encoder's weights while it listened.
      format: of the cache folder.
    """

    encoder: str
    sample_rate: int
    window_frames: int
    chunk_windows: int
    dtype: str
    format: int

    @classmethod
    def of(cls, config: ConfigDict) -> "Identity":
        """What the features of this experiment depend on."""
        encoder = weights.resolve(config.model.encoder)
        return cls(
            encoder=weights.digest(encoder),
            sample_rate=MertConfig.from_dict(weights.read_config(encoder)).sample_rate,
            window_frames=config.features.window_frames,
            chunk_windows=config.features.chunk_windows,
            dtype=config.model.dtype,
            format=FORMAT,
        )


class _Entry(NamedTuple):
    shard: str
    row: int
    windows: int
    seconds: float


class Cache:
    """Reads features by clip, from any number of threads.

    Attributes:
      folder: where the cache lies.
      ids: the clips that have features.
      skipped: clip → why it has none.
      silent: clips in which nothing is louder than −80 dB.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]]):
        """Use `Cache.open`; `lines` are those of the index."""
        self.folder = folder
        self.silent = frozenset(itertools.chain(*(line["silent"] for line in lines)))
        self._entries = {
            clip: _Entry(line["shard"], row, windows, seconds)
            for line in lines
            for row, (clip, windows, seconds) in enumerate(line["clips"])
        }
        self.skipped: dict[str, str] = {
            clip: reason
            for line in lines
            for clip, reason in line["skipped"].items()
            if clip not in self._entries
        }
        self._reader = functools.lru_cache(_OPEN_SHARDS)(self._open_shard)

    @classmethod
    def open(cls, folder: Path | str, identity: Identity) -> "Cache":
        """The cache at `folder`.

        Raises:
          UserError: there is none, it was made with something else than `identity`, or
            a shard is missing.
        """
        folder = Path(folder)
        if not (folder / shards.INDEX).is_file():
            raise UserError(f"{folder}: holds no features yet; {_REMEDY}")
        lines, damaged = shards.read_index(folder, asdict(identity))
        if damaged:
            raise UserError(f"{folder / damaged[0]}: is missing or cut off; {_REMEDY}")
        return cls(folder, lines)

    @property
    def ids(self) -> Collection[str]:
        return self._entries.keys()

    def seconds(self, clip: str) -> float:
        """How long the song is."""
        return self._entries[clip].seconds

    def windows(self, clip: str) -> int:
        """How many vectors the song has, without reading them."""
        return self._entries[clip].windows

    def features(self, clip: str) -> Float[np.ndarray, "windows width"]:
        """What the encoder heard in a clip.

        Raises:
          UserError: the cache lacks the clip, or its shard cannot be read.
        """
        if clip not in self._entries:
            reason = self.skipped.get(clip)
            raise UserError(
                f"{clip}: is not in the cache {self.folder}, for {reason}"
                if reason
                else f"{clip}: is not in the cache {self.folder}; {_REMEDY}"
            )
        entry = self._entries[clip]
        try:
            (record,) = self._reader(entry.shard).read([entry.row])
        except RuntimeError as error:
            raise UserError(
                f"{self.folder / entry.shard}: is damaged; delete it, then {_REMEDY}"
            ) from error
        return np.frombuffer(record, np.float32).reshape(entry.windows, -1)

    def _open_shard(self, name: str) -> ArrayRecordReader:
        return shards.open_records(self.folder / name)


def build(
    clips: Iterable[Clip],
    mert: Mert,
    config: FeatureConfig,
    folder: Path | str,
    identity: Identity,
    mesh: jax.sharding.Mesh,
) -> Cache:
    """Encodes the clips that the cache lacks, shard by shard.

    Clips are decoded on threads while the encoder works. One that cannot be decoded is
    put down as skipped, with the reason, and tried again at the end of the next call.

    Args:
      clips: what the cache should hold; what else it holds stays.
      mert: the encoder that `identity` tells of.
      config: how songs become vectors.
      folder: the cache, made if there is none.
      identity: what the features depend on.
      mesh: where the encoder runs.

    Raises:
      UserError: the cache was made with another identity, another process is filling
        it, or it cannot be written.
    """
    if jax.process_count() > 1:
        raise UserError(f"{folder}: fill the cache with one process first; {_REMEDY}")
    folder = Path(folder)
    clips = list({clip.id: clip for clip in clips}.values())
    try:
        with shards.claim(folder, asdict(identity)) as index:
            known = Cache(folder, index.lines)
            # Those that failed before come last, so that the others meet the same
            # neighbours in a batch as if nothing had interrupted.
            new = [clip for clip in clips if clip.id not in known.ids]
            new.sort(key=lambda clip: clip.id in known.skipped)
            sample_rate = mert.config.sample_rate
            decoding = _decoded(new, len(clips), sample_rate)
            with contextlib.closing(decoding) as decoded:
                while True:
                    shard = _Shard(sample_rate)
                    vectors = encode(mert, shard.take(decoded), config, mesh)
                    if not shard.clips and not shard.skipped:
                        break
                    index.append([v.tobytes() for v in vectors], shard.note(vectors))
    except OSError as error:
        raise UserError(
            f"{folder}: the cache cannot be written ({error.strerror or error}); what "
            "was finished is kept. Make room there, or choose another folder with "
            "--config.features.cache=…"
        ) from error
    return Cache.open(folder, identity)


class _Shard:
    """A shard in the making: songs pass through it and leave their names."""

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate
        self.clips: list[tuple[str, float]] = []
        self.silent: list[str] = []
        self.skipped: dict[str, str] = {}

    def take(
        self, decoded: Iterator[tuple[Clip, np.ndarray | UserError]]
    ) -> Iterator[Float[np.ndarray, " samples"]]:
        """Hands on waveforms until the shard is full or there are no more."""
        total = 0.0
        for clip, waveform in decoded:
            if isinstance(waveform, UserError):
                self.skipped[clip.id] = str(waveform)
            else:
                seconds = len(waveform) / self.sample_rate
                total += seconds
                self.clips.append((clip.id, seconds))
                if audio.is_silent(waveform):
                    self.silent.append(clip.id)
                yield waveform
            count = len(self.clips) + len(self.skipped)
            if count >= SHARD_CLIPS or total >= SHARD_SECONDS:
                return

    def note(self, vectors: list[np.ndarray]) -> dict[str, Any]:
        """What the index should say of the shard."""
        return {
            "clips": [
                [clip, len(vector), round(seconds, 3)]
                for (clip, seconds), vector in zip(self.clips, vectors, strict=True)
            ],
            "silent": self.silent,
            "skipped": self.skipped,
        }


def _decoded(
    clips: list[Clip], total: int, sample_rate: int
) -> Iterator[tuple[Clip, np.ndarray | UserError]]:
    """Each clip with its waveform or what is wrong with it, under a progress bar."""
    started, heard = time.monotonic(), 0.0
    paths = [clip.path for clip in clips]
    with (
        contextlib.closing(audio.load_ahead(paths, sample_rate=sample_rate)) as loaded,
        cli.progress(
            total=total, initial=total - len(clips), unit="clip", label="encoding"
        ) as bar,
    ):
        for clip, waveform in zip(clips, loaded, strict=True):
            yield clip, waveform
            heard += 0 if isinstance(waveform, UserError) else len(waveform)
            speed = heard / sample_rate / (time.monotonic() - started)
            bar.set_postfix_str(f"{speed:.1f}× real time", refresh=False)
            bar.update()


def prepare(
    config: ConfigDict, records: list[songs.Record], mesh: jax.sharding.Mesh
) -> Cache:
    """The cache of an experiment, with all songs of `records` that can be read.

    Loads the encoder only if there is something to encode.

    Raises:
      UserError: as in `build`; or songs cannot be read and
        `config.features.allow_missing` is false.
    """
    folder, identity = Path(config.features.cache), Identity.of(config)
    numbers = FeatureConfig.from_config(config)
    clips = list({r.clip: Clip(r.clip, r.audio) for r in records}.values())
    lines, damaged = [], []
    if (folder / shards.INDEX).is_file():
        lines, damaged = shards.read_index(folder, asdict(identity))
    cache = Cache(folder, lines)
    if damaged or any(clip.id not in cache.ids for clip in clips):
        mert = weights.load_encoder(
            config.model.encoder, dtype=config.model.dtype, mesh=mesh
        )
        cache = build(clips, mert, numbers, folder, identity, mesh)
    reasons = [cache.skipped[clip.id] for clip in clips if clip.id in cache.skipped]
    if reasons and not config.features.allow_missing:
        listed = "".join(f"\n  {reason}" for reason in reasons)
        raise UserError(
            f"{len(reasons)} of {len(clips)} songs cannot be read; the others are "
            f"cached in {folder}. Mend them or take them out of the corpus, or go on "
            f"without them with --config.features.allow_missing=True:{listed}"
        )
    return cache


def main(argv: list[str]) -> None:
    """Encodes the songs of `config.corpus` and says what the cache holds."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    config = flags.FLAGS.config
    if config is None:
        raise UsageError("--config is missing: name a file of configs/")
    records = songs.load(config.corpus.path)
    started = time.monotonic()
    cache = prepare(config, records, make_mesh(**config.mesh))
    print(summary(cache, {record.clip for record in records}))
    print(f"took {time.monotonic() - started:.1f} s")


def summary(cache: Cache, clips: Collection[str]) -> str:
    """What the cache knows about some clips, for people."""
    held = [clip for clip in clips if clip in cache.ids]
    hours = sum(cache.seconds(clip) for clip in held) / 3600
    width = cache.features(held[0]).shape[1] if held else 0
    size = sum(cache.windows(clip) for clip in held) * width * 4
    lines = [f"{cache.folder}: {len(held)} clips, {hours:.2f} h, {size:,} bytes"]
    for kind in ("silent", "skipped"):
        if some := sorted(set(getattr(cache, kind)) & set(clips)):
            names = [cache.skipped.get(clip, clip) for clip in some]
            lines.append(f"{len(some)} {kind}:" + "".join(f"\n  {n}" for n in names))
    return "\n".join(lines)


if __name__ == "__main__":
    cli.define_config()
    cli.run(main)
