"""All rows as JSON lines, as CSV and as Parquet."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.captioned import LeftOut, Song
from musilingo_jax.jobs import all_rows
from musilingo_jax.runtime import storage

ROWS = "captions.jsonl"

_AGAIN = "run the same command again"
_STRETCH = ("start", "end", "seconds")


def write_jsonl(songs: Sequence[Song], path: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the rows as they are.

    Raises:
      UserError: the file cannot be written.
    """
    all_rows.write(path, (song.row for song in songs))
    return f"{path}: {len(songs):,} rows", []


def write_csv(songs: Sequence[Song], path: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the values, with commas between the words of a list.

    Raises:
      UserError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", *fields.FIELDS, *_STRETCH])
    for song in songs:
        values = [song.value(name) for name in fields.FIELDS]
        values = [", ".join(v) if isinstance(v, list) else v for v in values]
        table.writerow([song.audio, *values, *map(song.row.get, _STRETCH)])
    with storage.writing(path, again=_AGAIN):
        storage.write_text(path, text.getvalue())
    return f"{path}: {len(songs):,} rows", []


def write_parquet(songs: Sequence[Song], path: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the values in columns of their types, and the whole row as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    # Here and not above, because it takes long to import.
    import pyarrow as pa
    from pyarrow import parquet

    types = {name: pa.string() for name in fields.FIELDS}
    types |= {name: pa.list_(pa.string()) for name in fields.LISTS}
    types[fields.BPM] = pa.float64()
    columns: dict[str, Any] = {
        "id": pa.array([song.row["id"] for song in songs], pa.string()),
        "file": pa.array([song.audio for song in songs], pa.string()),
    }
    columns |= {
        name: pa.array([song.value(name) for song in songs], types[name])
        for name in fields.FIELDS
    }
    columns |= {
        name: pa.array([song.row.get(name) for song in songs], pa.float64())
        for name in _STRETCH
    }
    rows = [json.dumps(song.row, ensure_ascii=False) for song in songs]
    columns["row"] = pa.array(rows, pa.string())
    with storage.writing(path, again=_AGAIN), storage.atomic(path) as partial:
        parquet.write_table(pa.table(columns), partial)
    return f"{path}: {len(songs):,} rows", []
