"""A corpus as a TFDS dataset in ArrayRecord: how its records are stored and read back.

    out/musiccaps/1.0.0/dataset_info.json, features.json       what TFDS writes
    out/musiccaps/1.0.0/musiccaps-train.array_record-00000-…   one example per record

An example has the fields of a `Record`, with times in milliseconds and the path of the
sound relative to the audio folder, which the dataset's metadata names. Sound files stay
where they are. TensorFlow is not used.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from musilingo_jax.corpora import listing
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError

AUDIO_FOLDER = "audio_folder"  # key of the dataset's metadata
UNFINISHED = "incomplete."  # How TFDS begins the name of an unfinished dataset.

_INFO = "dataset_info.json"
_TEXTS = ("audio", "clip", "question", "answer", "attribute", "value")
_NUMBERS = ("start_ms", "end_ms", "rate")
_NONE = -1  # In place of a time or rate that is None.
_BLOCK = 8192  # records that are read together


def features() -> tfds.features.FeaturesDict:
    """The fields of an example, as `encode` returns them."""
    texts = {name: tfds.features.Text() for name in _TEXTS}
    numbers = dict.fromkeys(_NUMBERS, np.int64)
    return tfds.features.FeaturesDict({**texts, **numbers, "seconds": np.float32})


def encode(record: Record, seconds: float | None, folder: Path | None) -> dict:
    """An example.

    Args:
      record: what to store; its split is not stored in the example.
      seconds: how long the clip lasts; None if that is unknown.
      folder: the audio folder; sound outside of it is stored with its absolute path.
    """
    audio = record.audio.absolute()
    if folder is not None and audio.is_relative_to(folder):
        audio = audio.relative_to(folder)
    return {
        "audio": str(audio),
        "clip": record.clip,
        "question": record.question,
        "answer": record.answer,
        "attribute": record.attribute or "",
        "value": record.value or "",
        "start_ms": _milliseconds(record.start),
        "end_ms": _milliseconds(record.end),
        "rate": _NONE if record.rate is None else record.rate,
        "seconds": math.nan if seconds is None else seconds,
    }


def decode(example: Any, folder: Path, split: str) -> Record:
    """The record of an example.

    Args:
      example: what `encode` returned, as the protocol buffer in which TFDS stores it.
      folder: the audio folder.
      split: of the record.
    """
    fields = example.features.feature
    text = {name: fields[name].bytes_list.value[0].decode() for name in _TEXTS}
    start, end, rate = (fields[name].int64_list.value[0] for name in _NUMBERS)
    return Record(
        audio=folder / text["audio"],
        clip=text["clip"],
        question=text["question"],
        answer=text["answer"],
        split=split,
        attribute=text["attribute"] or None,
        value=text["value"] or None,
        start=None if start == _NONE else start / 1000,
        end=None if end == _NONE else end / 1000,
        rate=None if rate == _NONE else rate,
    )


def find(folder: Path) -> Path | None:
    """The dataset at or below a folder: `out/musiccaps` stands for its only version.

    Raises:
      UserError: there are several.
    """
    found = [
        info.parent
        for pattern in ("", "*/", "*/*/")
        for info in sorted(folder.glob(pattern + _INFO))
        if not info.parent.name.startswith(UNFINISHED)
    ]
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise UserError(f"{folder}: contains several corpora; name one of {listed}")
    return found[0] if found else None


def load(folder: Path) -> list[Record]:
    """The records of a dataset, split after split, each in its published order.

    Sound files are not opened: features that are cached can be used without them.

    Raises:
      UserError: it is not a dataset of this kind, or a part of it is missing or
        damaged; or its name is not UTF-8.
    """
    listing.check_name(folder)
    try:
        dataset = tfds.builder_from_directory(folder)
        audio = Path(_metadata(dataset)[AUDIO_FOLDER])
        return [
            decode(example, audio, split)
            for split in dataset.info.splits
            for example in _examples(dataset, split)
        ]
    # What TFDS, ArrayRecord and protobuf raise for missing files or garbage.
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise UserError(
            f"{folder}: is not a corpus that musilingo_jax.corpora.build made, or it "
            f"is damaged ({error}); build it again"
        ) from error


def _examples(dataset: tfds.core.DatasetBuilder, split: str) -> Iterator[Any]:
    """The examples of a split as protocol buffers, not decoded by TFDS.

    TFDS reads any features, from a schema; `decode` reads the ten that there are. Of
    30,000 records, on one core of an EPYC: 0.6 s from file to `Record` here; 1.9 s with
    TFDS's decoding in the same blocks, 3.3 s record by record. LP-MusicCaps-MSD has
    half a million.
    """
    # The generated class is only added when its module is imported.
    parse = tf_example_pb2.Example.FromString  # type: ignore[attr-defined]
    # TFDS's decorator hides the parameters.
    source = dataset.as_data_source(
        split,  # type: ignore[call-arg]
        deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
    )
    for start in range(0, len(source), _BLOCK):
        places = list(range(start, min(start + _BLOCK, len(source))))
        yield from map(parse, source.__getitems__(places))


def _metadata(dataset: tfds.core.DatasetBuilder) -> dict[str, Any]:
    metadata = dataset.info.metadata
    return metadata if isinstance(metadata, dict) else {}


def _milliseconds(seconds: float | None) -> int:
    return _NONE if seconds is None else round(1000 * seconds)
