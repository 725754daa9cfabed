"""The two files of a shard: records with features, and a note that describes them.

    00000007.array_record    a record per clip: the bytes of its float32 [rows, width]
    00000007.json            {"shard": "00000007.array_record", "bytes": 65536,
                              "features": 24576, "identity": {…},
                              "clips": [["a.ogg:…", 2, 8.66, "songs/a.ogg"], …],
                              "silent": […], "skipped": {…}, "missing": {…},
                              "absent": […], "notices": {…}, "digest": "…"}

Entry i of `clips` describes record i: the id of the clip, its rows, its seconds, the
path of its file. `silent` lists those of them without sound. The other lists say why
clips of the plan have no record:

    skipped    clip → reason: its file cannot be decoded
    missing    clip → reason: its file does not exist, cannot be read, or has changed
    absent     it is no longer in the corpus

`notices` says of clips with a record what their listener should know, such as a few
milliseconds that are missing at the end; it is left out if there are none.

The note is written last. A shard with a note is finished.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.jobs import seal
from musilingo_jax.jobs.identity import is_identity
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, read_any_json

SHARD_INDEX = "index.jsonl"
REMEDY = "run `python -m musilingo_jax.cache --config=…` with the same config"

Note = dict[str, Any]

# Seconds of a clip, far above any: sums of more are no floats.
_LONGEST = 1e9
# Keys of a note with clip → why it has no record.
_REASONS = ("skipped", "missing")


class CachedClip(NamedTuple):
    """A clip that has a record.

    Attributes:
      id: of the clip.
      features: the record.
      seconds: the clip's length.
      path: its file when it was encoded.
      silent: whether nothing in it is above −80 dB of full scale.
      notices: what its listener should know.
    """

    id: str
    features: Float[np.ndarray, "rows width"]
    seconds: float
    path: str
    silent: bool
    notices: list[str]


class ShardWriter:
    """Writes a shard, clip by clip; leaving it without `finish` leaves nothing behind.

    Its clips are to be added in the order of the plan, so that the shard has the same
    bytes whoever makes it.
    """

    def __init__(self, folder: epath.Path, number: int, identity: Identity):
        """Writes shard `number` of the cache in `folder`."""
        self._folder, self._number, self._identity = folder, number, identity
        self._features = 0
        self._note: Note = {
            "clips": [],
            "silent": [],
            "skipped": {},
            "missing": {},
            "absent": [],
        }
        self._stack = contextlib.ExitStack()
        self._records: tuple[Path, ArrayRecordWriter] | None = None

    def __enter__(self) -> "ShardWriter":
        storage.remove_partial_files(self._folder, f"{self._number:08}.")
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, clip: CachedClip) -> None:
        """Writes the next record.

        Raises:
          OSError: the disk is full, for example.
        """
        try:
            if self._records is None:
                path = self._folder / record_name(self._number)
                partial = self._stack.enter_context(storage.atomic(path))
                # One record a group: each is read alone. Features do not compress.
                options = "group_size:1,uncompressed"
                self._records = partial, ArrayRecordWriter(str(partial), options)
            self._records[1].write(clip.features.tobytes())
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._features += clip.features.nbytes
        self._note["clips"].append(
            [clip.id, len(clip.features), round(clip.seconds, 3), clip.path]
        )
        if clip.silent:
            self._note["silent"].append(clip.id)
        if clip.notices:
            self._note.setdefault("notices", {})[clip.id] = clip.notices

    def add_skipped(self, id: str, reason: str) -> None:
        """Notes that the next clip cannot be decoded."""
        self._note["skipped"][id] = reason

    def add_missing(self, id: str, reason: str) -> None:
        """Notes that the file of the next clip is not available."""
        self._note["missing"][id] = reason

    def add_absent(self, id: str) -> None:
        """Notes that the next clip is no longer in the corpus."""
        self._note["absent"].append(id)

    def finish(self) -> None:
        """Gives the records their name, and then writes the note.

        If the shard is made again, the index and the old note, which describe the old
        records, are removed first: nothing may describe the new records wrongly.

        Raises:
          OSError: as in `add`.
        """
        size = 0
        if self._records is not None:
            partial, writer = self._records
            try:
                writer.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error
            size = partial.stat().st_size
        note = self._folder / note_name(self._number)
        if note.exists():
            (self._folder / SHARD_INDEX).unlink(missing_ok=True)
            note.unlink(missing_ok=True)
        self._stack.close()
        content = {
            "shard": record_name(self._number),
            "bytes": size,
            "features": self._features,
            "identity": self._identity.stored(),
            **self._note,
        }
        storage.write_text(note, json.dumps(seal.sealed(content)) + "\n")


class EarlierShard:
    """What a shard holds that is about to be made again.

    That happens when a clip is found that was missing. Meanwhile other clips of the
    shard may have lost their files, or left the corpus. Their features are kept:

        earlier records     a.wav   –       c.wav
        earlier note        held    missing held
        files now           a.wav   b.wav   –
        new records         encoded encoded copied from the earlier records
    """

    def __init__(self, folder: epath.Path, number: int, note: Note | None):
        """Opens shard `number`; with `note` None it holds nothing."""
        self._path = folder / record_name(number)
        self._note = note or {"clips": [], "silent": []}
        self._rows = {clip: row for row, (clip, *_) in enumerate(self._note["clips"])}
        self._stack = contextlib.ExitStack()
        self._records: ArrayRecordReader | None = None

    def __enter__(self) -> "EarlierShard":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def get(self, id: str) -> CachedClip | None:
        """A clip that the shard holds; None if it has no record.

        Raises:
          UserError: the records are damaged.
        """
        if id not in self._rows:
            return None
        row = self._rows[id]
        _, count, seconds, path = self._note["clips"][row]
        try:
            if self._records is None:
                self._records = open_records(self._local())
            width = width_of(self._note) or 0
            features = read_record(self._records, row, count, width)
        except RuntimeError as error:
            raise damaged(self._path) from error
        silent, notices = id in self._note["silent"], notices_of(self._note)
        return CachedClip(id, features, seconds, path, silent, notices.get(id, []))

    def _local(self) -> Path:
        if paths.is_local(self._path):
            return Path(self._path)
        place = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._path.copy(epath.Path(place) / self._path.name)
        return Path(place) / self._path.name


def open_records(path: os.PathLike) -> ArrayRecordReader:
    """A local shard for reading in any order, hence without read-ahead."""
    return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")


def read_record(
    records: ArrayRecordReader, row: int, count: int, width: int
) -> Float[np.ndarray, "count width"]:
    """Record `row` of a shard, which has `count` vectors of `width` numbers.

    Raises:
      RuntimeError: the file is damaged, or not the one that the note describes.
    """
    # Reading many records in one call takes ArrayRecord twice as long for each.
    (record,) = records.read([row])
    if len(record) != count * width * np.float32().nbytes:
        raise RuntimeError("a record has another size than its note says")
    return np.frombuffer(record, np.float32).reshape(count, width)


def damaged(path: epath.Path) -> UserError:
    """The error for records or a note that cannot be used."""
    return UserError(f"{path}: is damaged; delete it, then {REMEDY}")


def record_name(number: int) -> str:
    """The file name of a shard's records."""
    return f"{number:08}.array_record"


def note_name(number: int) -> str:
    """The file name of a shard's note."""
    return f"{number:08}.json"


def read_note(folder: epath.Path, number: int) -> Note | None:
    """The note of a shard; None if it does not exist or is damaged."""
    try:
        note = read_any_json(folder / note_name(number))
    except UserError:
        return None
    return None if clips_of(note) is None or not seal.is_intact(note) else note


def clips_of(note: Any) -> list[str] | None:
    """All clips that a note describes, held ones first; None if it is not a note."""
    if not isinstance(note, dict):
        return None
    held, silent, absent = (note.get(key) for key in ("clips", "silent", "absent"))
    valid = (
        all(_is_size(note.get(key)) for key in ("bytes", "features"))
        and is_identity(note.get("identity"))
        and isinstance(held, list)
        and all(map(_is_held, held))
        and all(_are_reasons(note.get(key)) for key in _REASONS)
        and all(map(is_texts, (silent, absent)))
        and _are_notices(note.get("notices", {}))
        and width_of(note) is not None
    )
    if not valid:
        return None
    others = (*(note[key] for key in _REASONS), note["absent"])
    return [
        *(clip[0] for clip in note["clips"]),
        *(clip for some in others for clip in some),
    ]


def _are_reasons(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _are_notices(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_texts, value.values()))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_held(value: Any) -> bool:
    """Whether a value is the entry of a note for a clip that has a record."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    id, rows, seconds, path = value
    texts = isinstance(id, str) and isinstance(path, str)
    length = type(seconds) in (int, float) and 0 <= seconds < _LONGEST
    return texts and length and _is_size(rows)


def width_of(note: Note) -> int | None:
    """Numbers per vector in a shard; None if the note contradicts itself."""
    vectors = sum(rows for _, rows, *_ in note["clips"])
    width, rest = divmod(note["features"], max(1, vectors) * np.float32().nbytes)
    return None if rest or bool(width) != bool(vectors) else width


def notices_of(note: Note) -> dict[str, list[str]]:
    """Clip → what its listener should know, as its shard's note says."""
    return note.get("notices", {})


def is_whole(number: int, note: Note, sizes: Mapping[str, int | None]) -> bool:
    """Whether a shard's records are as large as its note says.

    Args:
      number: of the shard.
      note: of the shard.
      sizes: the files of the folder, as `paths.file_sizes` lists them. In a bucket they
        have no sizes; there a file is whole if it exists.
    """
    name, size = record_name(number), note["bytes"]
    return not size or (name in sizes and sizes[name] in (size, None))
