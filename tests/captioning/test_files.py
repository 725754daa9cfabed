"""What other programs read: each format, by a reader that is not ours."""

import csv
import gzip
import json
import os
import tarfile

import numpy as np
import pandas
import pytest
from etils import epath
from helpers.captioned_songs import row, song
from pyarrow import parquet

from musilingo_jax.captioning import files, sidecars, webdataset
from musilingo_jax.captioning.captioned import Song
from musilingo_jax.runtime.errors import UserError

# The fields of ACE-Step 1.5's `AudioSample`, and of audiocraft's `MusicInfo` and
# `AudioMeta`.
ACE_STEP = {
    *("id", "audio_path", "filename", "caption", "genre", "lyrics", "raw_lyrics"),
    *("formatted_lyrics", "bpm", "keyscale", "timesignature", "duration", "language"),
    *("is_instrumental", "custom_tag", "labeled", "prompt_override"),
}
MUSIC_INFO = {
    *("title", "artist", "key", "bpm", "genre", "moods", "keywords", "description"),
    *("name", "instrument"),
}
AUDIO_META = {"path", "duration", "sample_rate", "amplitude", "weight", "info_path"}


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    return [
        song(folder, "a/one.wav"),
        song(folder, "two.b.flac", vocals="female voice", bpm=None, key=None),
        song(folder, "three.wav", caption=None, outcome="dropped", genre=None),
        song(folder, "four.wav", start=0.5, end=1.5),
        song(folder, "five.wav", vocals=None, timesignature=None, instruments=[]),
    ]


def write(songs, folder, *formats, beside=False):
    return files.write(songs, epath.Path(folder), formats, beside=beside)


def test_tables_hold_all_rows(songs, tmp_path):
    written, left_out = write(songs, tmp_path, "jsonl", "csv", "parquet")
    assert left_out == [] and written["csv"] == f"{tmp_path}/captions.csv: 5 rows"
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [each.row for each in songs]
    table = pandas.read_csv(tmp_path / "captions.csv", keep_default_na=False)
    assert list(table["file"]) == [each.audio for each in songs]
    assert list(table["instruments"])[:1] == ["piano, flute"]
    assert list(table["caption"])[2] == "" and list(table["bpm"])[:2] == ["112.4", ""]
    assert (table["start"][3], table["end"][3]) == ("0.5", "1.5")
    frame = pandas.read_parquet(tmp_path / "captions.parquet")
    captions = [None if pandas.isna(text) else text for text in frame["caption"]]
    assert captions == [each.caption for each in songs]
    assert list(frame["instruments"][0]) == ["piano", "flute"]
    assert np.isnan(frame["bpm"][1]) and frame["bpm"][0] == 112.4
    assert [json.loads(text) for text in frame["row"]] == [each.row for each in songs]
    types = parquet.read_schema(tmp_path / "captions.parquet")
    assert str(types.field("tags").type) == "list<element: string>"


def test_ace_step_looks_for_columns_of_the_csv(songs, tmp_path):
    write(songs, tmp_path, "csv")
    with (tmp_path / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
        names = {name.lower() for name in csv.DictReader(file).fieldnames or ()}
    assert names >= {"file", "bpm", "key", "caption"}


def test_ace_step_gets_its_dataset(songs, tmp_path):
    written, left_out = write(songs, tmp_path, "ace-step")
    content = json.loads((tmp_path / "ace-step.json").read_text())
    assert content["metadata"]["num_samples"] == 3
    assert content["metadata"]["all_instrumental"] is False
    one, two, five = content["samples"]
    assert all(sample.keys() == ACE_STEP for sample in content["samples"])
    assert len({sample["id"] for sample in content["samples"]}) == 3
    assert os.path.isabs(one["audio_path"]) and one["filename"] == "one.wav"
    assert (one["bpm"], one["keyscale"], one["timesignature"]) == (112, "A minor", "3")
    assert (one["lyrics"], one["is_instrumental"]) == ("[Instrumental]", True)
    assert (two["bpm"], two["keyscale"], two["lyrics"]) == (None, "", "")
    assert (two["is_instrumental"], five["is_instrumental"]) == (False, False)
    assert five["timesignature"] == "" and five["duration"] == 2
    assert [(each.audio, each.reason) for each in left_out] == [
        ("three.wav", "has no caption"),
        ("four.wav", "is a stretch of a file, and this format names whole files"),
    ]
    assert written["ace-step"].endswith("ace-step.json: 3 samples")


def test_audiocraft_finds_a_json_beside_each_track(songs, tmp_path):
    for _ in range(2):  # A second time, over its own files.
        _, left_out = write(songs, tmp_path, "audiocraft")
    assert [each.audio for each in left_out] == ["three.wav", "four.wav"]
    packed = (tmp_path / "audiocraft/data.jsonl.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all(entry.keys() == AUDIO_META for entry in entries)
    assert [entry["sample_rate"] for entry in entries] == [8000] * 3
    for entry, each in zip(entries, (songs[0], songs[1], songs[4]), strict=True):
        assert os.path.realpath(entry["path"]) == str(each.path)
        info = json.loads(epath.Path(entry["path"]).with_suffix(".json").read_text())
        assert info.keys() >= MUSIC_INFO
        assert (info["bpm"], info["key"]) == (each.value("bpm"), each.value("key"))
        assert info["description"] == "A calm | piece."
        assert isinstance(info["moods"], list) and isinstance(info["keywords"], list)


def test_audiocraft_does_not_replace_what_is_no_link(songs, tmp_path):
    (tmp_path / "audiocraft/a").mkdir(parents=True)
    (tmp_path / "audiocraft/a/one.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match="is no link that was made here; move it away"):
        write(songs, tmp_path, "audiocraft")
    assert (tmp_path / "audiocraft/a/one.wav").read_bytes() == b"mine"


def members(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def test_a_webdataset_has_the_same_bytes_every_time(songs, tmp_path):
    for name in ("one", "two"):
        _, left_out = write(songs, tmp_path / name, "webdataset")
    tars = [tmp_path / name / "webdataset/000000.tar" for name in ("one", "two")]
    assert tars[0].read_bytes() == tars[1].read_bytes()
    found = members(tars[0])
    # What belongs together has one name up to the first dot, and stands together.
    assert list(found) == [
        f"{number:09}.{end}"
        for number, suffix in enumerate(("wav", "flac", "wav"))
        for end in (suffix, "json", "txt")
    ]
    assert found["000000001.flac"] == songs[1].path.read_bytes()
    assert json.loads(found["000000001.json"]) == songs[1].row
    assert found["000000000.txt"] == b"A calm | piece."
    with tarfile.open(tars[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {
            (0, 0, 0, "", 0o644)
        }
    assert len(left_out) == 2


def test_the_library_webdataset_reads_it(songs, tmp_path):
    library = pytest.importorskip("webdataset", reason="needs the library webdataset")
    write(songs, tmp_path, "webdataset")
    path = str(tmp_path / "webdataset/000000.tar")
    samples = [*library.WebDataset(path, shardshuffle=False).decode()]
    written = (songs[0], songs[1], songs[4])
    assert [sample["json"] for sample in samples] == [each.row for each in written]
    assert [sample["txt"] for sample in samples] == ["A calm | piece."] * 3
    assert samples[1]["flac"] == songs[1].path.read_bytes()


def test_a_webdataset_is_cut_into_tar_files(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_SONGS", 1)
    write(songs, tmp_path, "webdataset")
    folder = tmp_path / "webdataset"
    names = [f"{number:06}.tar" for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert list(members(folder / "000002.tar"))[0] == "000000002.wav"
    songs[4].path.unlink()
    _, left_out = write(songs, tmp_path, "webdataset")
    assert left_out[-1].reason == "is not there any more"
    assert sorted(path.name for path in folder.iterdir()) == names[:2]
    monkeypatch.setattr(webdataset, "_SONGS", 9)
    monkeypatch.setattr(webdataset, "_BYTES", 1)
    write(songs, tmp_path, "webdataset")
    assert sorted(path.name for path in folder.iterdir()) == names[:2]


def test_sidecars_mirror_the_folder(songs, tmp_path):
    written, left_out = write(songs, tmp_path, "sidecar")
    assert written["sidecar"] == f"sidecars of 5 songs in {tmp_path}/sidecars"
    assert left_out == []
    folder = tmp_path / "sidecars"
    assert (folder / "a/one.txt").read_text() == "A calm | piece.\n"
    content = json.loads((folder / "two.b.json").read_text())
    assert content["made_by"] == "musilingo caption"
    assert {key: content[key] for key in songs[1].row} == songs[1].row
    assert (folder / "four@0.500-1.500.txt").is_file()
    assert (folder / "three.json").is_file() and not (folder / "three.txt").exists()


def test_sidecars_stand_beside_the_songs_and_are_replaced_if_they_are_ours(tmp_path):
    folder = tmp_path / "songs"
    write([song(folder, "a.wav")], tmp_path, "sidecar", beside=True)
    assert (folder / "a.txt").read_text() == "A calm | piece.\n"
    other = song(folder, "a.wav", caption="Another.")
    _, left_out = write([other], tmp_path, "sidecar", beside=True)
    assert left_out == [] and (folder / "a.txt").read_text() == "Another.\n"
    dropped = song(folder, "a.wav", caption=None)
    _, left_out = write([dropped], tmp_path, "sidecar", beside=True)
    assert left_out == [] and not (folder / "a.txt").exists()
    part = song(folder, "a.wav", start=1.0)
    write([part], tmp_path, "sidecar", beside=True)
    assert (folder / "a@1.000-.txt").is_file()
    assert not (tmp_path / "sidecars").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"Lyrics of mine.\n"),
        ("a.txt", b"caf\xe9"),
        ("a.json", b'{"mine": true}'),
        ("a.json", b"no json"),
    ],
)
def test_a_sidecar_never_replaces_what_was_not_made_here(tmp_path, name, content):
    folder = tmp_path / "songs"
    each = song(folder, "a.wav")
    (folder / name).write_bytes(content)
    _, (left_out,) = write([each], tmp_path, "sidecar", beside=True)
    assert left_out.reason == f"has another {name} already, which was not made here"
    assert (folder / name).read_bytes() == content
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_sidecar_that_was_edited_is_no_longer_ours(tmp_path, name):
    folder = tmp_path / "songs"
    write([song(folder, "a.wav")], tmp_path, "sidecar", beside=True)
    edited = (folder / name).read_text().replace("calm", "wild")
    (folder / name).write_text(edited)
    other = song(folder, "a.wav", caption="Another.")
    _, left_out = write([other], tmp_path, "sidecar", beside=True)
    assert len(left_out) == 1 and (folder / name).read_text() == edited


def test_after_a_kill_between_two_files_a_sidecar_is_finished(tmp_path):
    folder = tmp_path / "songs"
    each = song(folder, "a.wav")
    (folder / "a.txt").write_text("A calm | piece.\n")  # Without its JSON.
    _, left_out = write([each], tmp_path, "sidecar", beside=True)
    assert left_out == [] and (folder / "a.json").is_file()


def test_songs_that_would_share_a_name_are_left_out(tmp_path):
    folder = tmp_path / "songs"
    songs = [song(folder, "a.wav"), song(folder, "a.flac"), song(folder, "b.wav")]
    for name in ("sidecar", "audiocraft"):
        _, left_out = write(songs, tmp_path, name)
        assert [each.audio for each in left_out] == ["a.wav", "a.flac"]
        assert "with another song: rename one" in left_out[0].reason


def test_songs_outside_of_the_folder_have_no_mirrored_place(tmp_path):
    each = song(tmp_path / "other", "a.wav")
    outside = Song(row("../other/a.wav"), each.path, None)
    for name in ("sidecar", "audiocraft"):
        _, left_out = write([outside], tmp_path, name)
        assert left_out[0].reason == "lies outside of the folder of the songs"
    written, _ = write([outside], tmp_path, "sidecar", beside=True)
    assert written["sidecar"] == "sidecars of 1 songs beside the songs"
    assert (tmp_path / "other/a.txt").is_file()
    assert sidecars.MADE_BY in (tmp_path / "other/a.json").read_text()


def test_arrays_are_left_out_of_what_others_read(tmp_path):
    array = Song(row("a.npy"), tmp_path / "a.npy", 16_000)
    _, (left_out,) = write([array], tmp_path, "ace-step")
    assert "is an .npy" in left_out.reason
