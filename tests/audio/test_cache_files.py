"""Files of a cache that others have changed: made again, told, or without effect."""

import json
import os
import random

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from helpers.small_cache import IDENTITY, contents, fill, record_reads, write_songs

from musilingo_jax.audio.cache import cache_state, shards
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.jobs import seal, shard_plan
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

ODD = [
    None,
    True,
    -1,
    1.5,
    10**30,
    "x",
    "3",
    "\ud800",
    [],
    [[]],
    {},
    {"a": [1]},
    [None],
]
DEEP = "[" * 100_000


@pytest.fixture
def cache(tmp_path, mert):
    """A finished cache of two shards, its clips, and the function to fill it again."""
    clips = write_songs(tmp_path / "songs", 4)
    folder = tmp_path / "cache"
    before = contents(fill(clips, mert, folder, shard_clips=2))
    return folder, before, lambda: contents(fill(clips, mert, folder))


def paths_within(value, path=()):
    """Where values are within a value of JSON."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from paths_within(value[key], (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def read(folder):
    """All features, or the sentence that says why they cannot be read."""
    try:
        return contents(FeatureCache.open(folder, IDENTITY))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("name", ["plans/000.json", "00000000.json", "index.jsonl"])
def test_any_value_in_place_of_any_other_is_told_or_changes_no_number(cache, name):
    folder, before, _ = cache
    path = folder / name
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changes = [(where, odd) for where in paths_within(lines) if where for odd in ODD]
    assert len(changes) > 100
    for where, odd in changes:
        changed = replaced(lines, where, odd)
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        found = read(folder)
        # A clip may get another name, but its numbers are those of a clip.
        if isinstance(found, dict):
            assert set(found.values()) <= set(before.values()), (where, odd)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("name", ["plans/000.json", "00000000.json", "index.jsonl"])
def test_a_changed_letter_of_a_name_changes_nothing(cache, name, indexed):
    folder, before, fill_again = cache
    path, index = folder / name, folder / "index.jsonl"
    whole = path.read_text()
    assert whole.count('"01.wav"') == 1
    if not indexed and path != index:
        index.unlink()
    path.write_text(whole.replace('"01.wav"', '"11.wav"'))
    found = read(folder)
    assert found == before or name in found or "shards are finished" in found
    if name == "00000000.json" and indexed:
        assert "delete the file, then run" in found
        path.unlink()
    assert list(fill_again().items()) == list(before.items())
    assert path.read_text() == whole and index.exists()


@pytest.mark.parametrize("seconds", [10**400, 1e300, float("inf"), float("nan"), -1])
def test_seconds_that_no_clip_has_are_no_note(cache, seconds):
    """Whether or not it has a digest: notes of version 0.1 have none."""
    folder, before, fill_again = cache
    path = folder / "00000000.json"
    note = json.loads(path.read_text())
    del note["digest"]
    assert shards.clips_of(note) is not None
    note["clips"][0][2] = seconds
    path.write_text(json.dumps(note))
    (folder / "index.jsonl").unlink()
    assert shards.read_note(epath.Path(folder), 0) is None
    assert fill_again() == before


def test_two_names_that_changed_places_in_a_note_are_noticed(cache):
    folder, before, fill_again = cache
    (folder / "index.jsonl").unlink()
    path = folder / "00000000.json"
    whole = path.read_text()
    swapped = whole.replace('"00.wav"', '"x"').replace('"01.wav"', '"00.wav"')
    path.write_text(swapped.replace('"x"', '"01.wav"'))
    assert "1 of 2 shards are finished" in read(folder)
    assert fill_again() == before and path.read_text() == whole


@pytest.mark.parametrize("digest", [True, False])
def test_a_cache_is_read_however_its_json_is_laid_out(cache, monkeypatch, digest):
    folder, before, fill_again = cache
    for path in [*folder.glob("*.json"), *folder.glob("plans/*")]:
        content = json.loads(path.read_text())
        if not digest:  # As version 0.1 wrote it.
            del content["digest"]
        path.write_text(json.dumps(dict(reversed(content.items())), indent=1))
    (folder / "index.jsonl").unlink()
    names = record_reads(monkeypatch)
    assert fill_again() == before and not names


@pytest.mark.parametrize("name", ["plans/000.json", "00000000.json", "index.jsonl"])
@pytest.mark.parametrize("damage", ["deep", "pipe", "folder", "bytes"])
def test_a_file_of_another_kind_is_made_again(cache, name, damage):
    folder, before, fill_again = cache
    path = folder / name
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(DEEP.encode() if damage == "deep" else b"\xff\xfe\0")
    found = read(folder)
    assert found == before or "Traceback" not in found
    if damage == "folder":
        return  # What may be in it is not ours to delete.
    if name == "00000000.json":
        assert "delete the file, then run" in found
        path.unlink()
    assert fill_again() == before
    assert read(folder) == before


def test_a_note_that_contradicts_its_records_is_told(cache):
    folder, before, _ = cache
    (folder / "index.jsonl").unlink()
    path = folder / "00000000.json"
    note = json.loads(path.read_text())
    first, second = note["clips"]
    first[1], second[1] = first[1] - 1, second[1] + 1
    path.write_text(json.dumps(seal.sealed(note)))
    assert "00000000.array_record: is damaged; delete it" in read(folder)


def test_nan_in_a_record_names_shard_and_clip(cache):
    folder, before, _ = cache
    path = folder / "00000001.array_record"
    records = shards.open_records(path)
    kept = [bytearray(record) for record in records.read_all()]
    kept[1][:4] = np.float32(np.nan).tobytes()
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for record in kept:
        writer.write(bytes(record))
    writer.close()
    found = FeatureCache.open(folder, IDENTITY)
    fine, damaged = list(found.ids)[2:]
    assert found.features(fine).tobytes() == before[fine]
    for _ in range(2):
        with pytest.raises(
            UserError, match=rf"1\.array_record: .* {damaged} contain NaN"
        ):
            found.features(damaged)


def test_flipped_bits_of_records_are_told_or_harmless(cache):
    """ArrayRecord keeps a checksum of each record."""
    folder, before, _ = cache
    path = folder / "00000000.array_record"
    whole = path.read_bytes()
    rng = random.Random(0)
    told = 0
    for _ in range(150):
        place = rng.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        found = read(folder)
        assert found == before or "00000000.array_record: is damaged" in found
        told += found != before
    assert told > 0


def test_what_is_no_lock_is_told(cache, mert):
    folder, _, fill_again = cache
    (folder / "index.jsonl").unlink()
    (folder / "lock").unlink()
    os.mkfifo(folder / "lock")
    with pytest.raises(UserError, match=r"cache: cannot be written"):
        fill_again()


def test_notes_and_plans_of_other_kinds_are_none():
    for odd in ODD:
        assert shards.clips_of(odd) is None
    assert shard_plan.read(epath.Path("/nowhere")).count == 0
    assert cache_state.read(epath.Path("/nowhere"), None).progress.startswith("0 of 0")
