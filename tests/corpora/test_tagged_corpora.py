"""Small copies of the published files of sets with tags, keys, tempi and captions."""

import csv
import io
import json

import numpy as np
import pytest
import soundfile

from musilingo_jax.corpora import build, corpus
from musilingo_jax.runtime.errors import UserError

RATE = 4000
HTML = "<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:26f8\nsize 99\n"

FMA_COLUMNS = {
    "album": "comments date_created date_released engineer favorites id information "
    "listens producer tags title tracks type",
    "artist": "active_year_begin active_year_end associated_labels bio comments "
    "date_created favorites id latitude location longitude members name "
    "related_projects tags website wikipedia_page",
    "set": "split subset",
    "track": "bit_rate comments composer date_created date_recorded duration favorites "
    "genre_top genres genres_all information interest language_code license listens "
    "lyricist number publisher tags title",
}


def sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32)
    soundfile.write(path, wave, RATE)


def write(path, text, *, crlf=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", "\r\n" if crlf else "\n").encode())


def table(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    return text.getvalue().replace("\r\n", "\n")


def make(name, folder, audio=None):
    kind, config = build.find(name)
    audio = audio or folder / "audio"
    return kind(source=folder, audio=audio, data_dir=folder / "out", config=config)


def read(name, folder):
    """The rows without looking for sound: (split, attribute, value, answer)."""
    found = make(name, folder).rows()
    return [(row.split, row.attribute, row.value, row.answer) for row in found]


def refusal(name, folder):
    with pytest.raises(UserError) as caught:
        list(make(name, folder).rows())
    message = str(caught.value)
    assert "\n" not in message
    return message


def fma(folder, *songs):
    """(track, split, subset, genre_top, genres_all) → fma_metadata."""
    pairs = [(g, name) for g, names in FMA_COLUMNS.items() for name in names.split()]
    lines = [["", *(g for g, _ in pairs)], ["", *(name for _, name in pairs)]]
    lines.append(["track_id", *("" for _ in pairs)])
    for track, split, subset, top, every in songs:
        cells = {
            ("set", "split"): split,
            ("set", "subset"): subset,
            ("track", "genre_top"): top,
            ("track", "genres_all"): every,
            ("album", "information"): "<p>First,\nand last.</p>",
        }
        lines.append([track, *(cells.get(pair, "") for pair in pairs)])
    write(folder / "tracks.csv", table(lines))
    genres = "2,9,0,International,2\n21,8389,0,Hip-Hop,21\n37,97,4,Jazz: Vocal,4\n"
    write(folder / "genres.csv", "genre_id,#tracks,parent,title,top_level\n" + genres)
    return folder / "tracks.csv"


def test_fma_has_a_top_genre_and_all_genres(tmp_path):
    fma(
        tmp_path / "fma_metadata",
        ("2", "training", "small", "Hip-Hop", "[21]"),
        ("155", "validation", "medium", "", "[37, 2]"),
        ("99999", "test", "large", "", "[]"),
        ("123456", "test", "large", "Jazz", ""),
    )
    sound(tmp_path / "audio/fma_full/000/000002.wav", 1)
    sound(tmp_path / "audio/fma_full/000/000155.ogg", 1)
    survey = make("fma", tmp_path).survey
    assert [(r.split, r.attribute, r.value) for r, _ in survey.records] == [
        ("train", "genre", "Hip-Hop"),
        ("train", "genres", "Hip-Hop"),
        ("validation", "genres", "Jazz Vocal, International"),
    ]
    assert survey.records[2][0].answer == "The genres are Jazz Vocal and International."
    # The cell with a line end counts as the two lines that an editor shows.
    assert [(row["where"], row["reason"]) for row in survey.left_out] == [
        ("tracks.csv:8", "empty answer"),
        ("tracks.csv:10", "missing audio"),
    ]
    assert survey.left_out[1]["audio"] == "123/123456.mp3"
    assert [row[0] for row in read("fma/medium", tmp_path)] == ["train"] * 2 + [
        "validation"
    ]
    assert len(read("fma/small", tmp_path)) == 2


@pytest.mark.parametrize(
    "song, reason",
    [
        (("2", "train", "small", "", "[]"), r"tracks\.csv:4: set/subset and set/split"),
        (("x", "test", "small", "", "[]"), r"tracks\.csv:4: the track_id must be digi"),
        (("2", "test", "small", "", "[1"), r"must be a list of numbers, not '\[1'"),
        (("2", "test", "small", "", "7"), r"must be a list of numbers, not '7'"),
        (("2", "test", "small", "", "[7]"), r"there is no genre 7 in genres\.csv"),
    ],
)
def test_fma_refuses_a_song_by_its_line(tmp_path, song, reason):
    fma(tmp_path, song)
    with pytest.raises(UserError, match=reason):
        read("fma", tmp_path)


def test_fma_refuses_other_files(tmp_path):
    assert "there is no tracks.csv in it" in refusal("fma", tmp_path)
    path = fma(tmp_path, ("2", "test", "small", "", "[2]"))
    whole = path.read_bytes()
    for other in (HTML, POINTER, "track_id,title\n2,a\n", ""):
        write(path, other)
        assert "is not the tracks.csv of fma_metadata.zip" in refusal("fma", tmp_path)
    path.write_bytes(whole[:-20])
    assert "cells, not 53" in refusal("fma", tmp_path)
    path.write_bytes(whole.replace(b"genre_top", b"genre_sub"))
    assert "there is no column track/genre_top" in refusal("fma", tmp_path)
    path.write_bytes(whole.replace(b"First", b"F\xefrst"))
    assert "cannot be read as CSV: 'utf-8' codec" in refusal("fma", tmp_path)
    path.write_bytes(whole)
    (tmp_path / "genres.csv").unlink()
    assert "there is no genres.csv" in refusal("fma", tmp_path)


JAMENDO = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"


def jamendo(folder, **splits):
    for split in ("train", "validation", "test"):
        path = folder / f"data/splits/split-0/autotagging-{split}.tsv"
        write(path, JAMENDO + splits.get(split, ""), crlf=True)
    return path


def test_mtg_jamendo_has_its_tags_in_words(tmp_path):
    song = "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\t"
    other = song.replace("214", "215")
    jamendo(
        tmp_path,
        train=f"{song}genre---drumnbass\tmood/theme---film\tgenre---rnb\n",
        test=f"{other}instrument---acousticguitar\tmood/theme---sad\tmood/theme---fun\n",
    )
    expected = [
        (
            "train",
            "genre",
            "drum and bass, R&B",
            "The genres are drum and bass and R&B.",
        ),
        ("train", "mood", "film", "The mood or theme is film."),
        (
            "test",
            "instruments",
            "acoustic guitar",
            "The instrument is acoustic guitar.",
        ),
        ("test", None, None, "The moods and themes are sad and fun."),
    ]
    for source in (tmp_path, tmp_path / "data", tmp_path / "data/splits"):
        assert read("mtg_jamendo", source) == expected
    sound(tmp_path / "audio/14/214.wav", 1)
    sound(tmp_path / "audio/14/215.low.flac", 1)
    survey = make("mtg_jamendo", tmp_path).survey
    assert len(survey.records) == 4 and not survey.left_out
    assert survey.splits["train"].clips == survey.splits["test"].clips == 1


@pytest.mark.parametrize(
    "line, reason",
    [
        ("t\ta\tb\t1.mp3\t9.0\tstyle---pop\n", r"tsv:2: the tag 'style---pop' must be"),
        ("t\ta\tb\t1.mp3\t9.0\n", r"tsv:2: has 5 cells, not 6 or more"),
        ("t\ta\tb\t\t9.0\tgenre---pop\n", r"tsv:2: has 6 cells, .* or no path"),
        ("t\ta\tb\t1.mp3\t9.0\tgenre---po", r"tsv: the last line has no end"),
    ],
)
def test_mtg_jamendo_refuses_a_song_by_its_line(tmp_path, line, reason):
    jamendo(tmp_path, test=line)
    with pytest.raises(UserError, match=reason):
        read("mtg_jamendo", tmp_path)


def test_mtg_jamendo_refuses_other_files(tmp_path):
    path = jamendo(tmp_path)
    for other in (HTML, "", JAMENDO.replace("\t", ",")):
        write(path, other)
        assert "test.tsv:1: must name the columns" in refusal("mtg_jamendo", tmp_path)
    path.unlink()
    assert "there is no splits/split-0/autotagging-test.tsv or autotagging" in refusal(
        "mtg_jamendo", tmp_path
    )


TAGS = ["no vocals", "clasical", "guitar", "guitars", "slow", "fast", "singer", "weird"]


def magnatagatune(folder, *clips):
    """(path, tags) → annotations_final.csv."""
    lines = [["clip_id", *TAGS, "mp3_path"]]
    for number, (path, tags) in enumerate(clips):
        cells = (str(int(tag in tags)) for tag in TAGS)
        lines.append([str(number), *cells, path])
    text = table(lines, delimiter="\t", quoting=csv.QUOTE_ALL)
    write(folder / "annotations_final.csv", text)


def test_magnatagatune_asks_for_tags_and_what_they_say(tmp_path):
    magnatagatune(
        tmp_path,
        ("f/a-0-29.mp3", ("no vocals", "clasical", "guitar", "guitars", "slow")),
        ("b/b-0-29.mp3", ("fast", "slow", "singer", "no vocals", "weird")),
        ("c/c-0-29.mp3", ()),
    )
    assert read("magnatagatune", tmp_path) == [
        (
            "test",
            None,
            None,
            "no vocals, classical, guitar, guitars and slow.",
        ),
        ("test", "instruments", "guitar", "The instrument is guitar."),
        ("test", "genre", "classical", "The genre is classical."),
        ("test", "vocals", "no", "No, there are no vocals."),
        ("test", "pace", "slow", "It is slow."),
        # What players did not agree on is a tag, but no fact.
        ("train", None, None, "no vocals, slow, fast, singer and weird."),
        ("validation", None, None, ""),
    ]
    llark = {row[0] for row in read("magnatagatune/llark", tmp_path)[5:]}
    assert llark == {"validation"}
    sound(tmp_path / "audio/f/a-0-29.wav", 1)
    (tmp_path / "audio/b").mkdir()
    (tmp_path / "audio/b/b-0-29.mp3").touch()
    survey = make("magnatagatune", tmp_path).survey
    assert len(survey.records) == 5
    assert survey.reasons() == {"empty file": 1, "empty answer": 1}


def test_magnatagatune_refuses_other_files(tmp_path):
    magnatagatune(tmp_path, ("g/a.mp3", ()))
    assert "csv:2: 'mp3_path' must begin with a folder 0 to f" in refusal(
        "magnatagatune", tmp_path
    )
    magnatagatune(tmp_path, ("0/a.mp3", ("slow",)))
    path = tmp_path / "annotations_final.csv"
    text = path.read_text()
    write(path, text.replace('"1"', '"2"'))
    assert "csv:2: 'slow' must be 0 or 1, not '2'" in refusal("magnatagatune", tmp_path)
    for broken in (text.replace("\t", ","), text[:-5]):
        write(path, broken)
        assert "csv: cannot be read as CSV" in refusal("magnatagatune", tmp_path)
    write(path, text.replace("\t", ",").replace('"', ""))
    assert "no column clip_id, guitar, mp3_path" in refusal("magnatagatune", tmp_path)
    write(path, HTML)
    assert "no column clip_id, guitar, mp3_path" in refusal("magnatagatune", tmp_path)


NOTES = "start_time,end_time,instrument,note,start_beat,end_beat,note_value\n"


def musicnet(folder):
    write(
        folder / "musicnet_metadata.csv",
        "id,composer,composition,movement,ensemble,source,transcriber,catalog_name,"
        'seconds\n1727,Schubert,"WTK I, No 2",2.,Piano Quintet,European Archive,'
        "x,OP114,95\n1759,Schubert,Sonata,1.,Solo Piano,Museopen,x,D958,29\n"
        "1819,Mozart,Serenade,4.,,European Archive,x,K375,61\n",
    )
    labels = folder / "musicnet/train_labels/1727.csv"
    second = 44_100
    notes = [(0, second, 1), (29 * second, 31 * second, 41)]
    notes.append((30 * second, 60 * second, 1))
    lines = (f"{a},{b},{i},60,4.0,0.33,Quarter\n" for a, b, i in notes)
    write(labels, NOTES + "".join(lines))
    write(folder / "musicnet/test_labels/1759.csv", NOTES + "0,9,1,60,0,1,Quarter\n")
    write(folder / "musicnet/test_labels/1819.csv", NOTES + "0,9,72,60,0,1,Quarter\n")
    return labels


def test_musicnet_asks_for_the_instruments_of_each_half_minute(tmp_path):
    musicnet(tmp_path)
    rows = list(make("musicnet", tmp_path).rows())
    assert [(r.split, r.sound.start, r.attribute, r.value) for r in rows] == [
        ("train", 0, "instruments", "piano, violin"),
        ("train", 0, "ensemble", "Piano Quintet"),
        ("train", 30, "instruments", "piano, violin"),
        ("train", 30, "ensemble", "Piano Quintet"),
        # The last note ends where the third clip begins.
        ("train", 60, "ensemble", "Piano Quintet"),
        ("test", 0, "instruments", "clarinet"),
        ("test", 30, None, None),
    ]
    assert rows[-1].answer == ""
    sound(tmp_path / "audio/train_data/1727.wav", 95)
    survey = make("musicnet", tmp_path).survey
    assert [(r.start, r.end) for r, _ in survey.records[::2]] == [
        (0, 30),
        (30, 60),
        (60, 90),
    ]
    assert survey.splits["train"].hours == pytest.approx(90 / 3600, abs=1e-4)
    assert survey.reasons() == {"missing audio": 1, "empty answer": 1}


@pytest.mark.parametrize(
    "notes, reason",
    [
        (
            "0,9,2,60,0,1,Quarter\n",
            "1727.csv:2: no instrument of MusicNet has the numb",
        ),
        ("0,0.5,1,60,0,1,Quarter\n", "1727.csv:2: .* must be whole numbers"),
        ("9,3,1,60,0,1,Quarter\n", "1727.csv:2: no note lasts from 9 to 3"),
        ("0,9999999999,1,60,0,1,Quarter\n", "1727.csv:2: no note lasts from 0 to 99"),
        ("0,9,1\n", "1727.csv:2: the number of cells"),
    ],
)
def test_musicnet_refuses_a_note_by_its_line(tmp_path, notes, reason):
    write(musicnet(tmp_path), NOTES + notes)
    with pytest.raises(UserError, match=reason):
        read("musicnet", tmp_path)


def test_musicnet_refuses_other_files(tmp_path):
    labels = musicnet(tmp_path)
    write(labels, HTML)
    assert "1727.csv:1: there is no column start_time" in refusal("musicnet", tmp_path)
    labels.unlink()
    assert "there is no train_labels/1727.csv or test_lab" in refusal(
        "musicnet", tmp_path
    )
    path = tmp_path / "musicnet_metadata.csv"
    write(path, path.read_text().replace(",95", ",long"))
    assert "'seconds' must be a number, not 'long'" in refusal("musicnet", tmp_path)
    write(path, path.read_text().replace("1727", "../1"))
    path.write_text(path.read_text().replace(",long", ",95"))
    assert "'id' and 'seconds' must be numbers" in refusal("musicnet", tmp_path)
    write(path, HTML)
    assert "no column id, ensemble, seconds" in refusal("musicnet", tmp_path)


def test_giantsteps_has_keys_and_genres(tmp_path):
    write(tmp_path / "annotations/key/0010089.LOFI.key", "Bb major")
    write(tmp_path / "annotations/key/1234749.LOFI.key", "D# minor\n")
    write(tmp_path / "annotations/genre/0010089.LOFI.genre", "drum-and-bass")
    sound(tmp_path / "audio/0010089.LOFI.wav", 1)
    survey = make("giantsteps", tmp_path).survey
    assert [(r.split, r.attribute, r.value) for r, _ in survey.records] == [
        ("test", "key", "Bb major"),
        ("test", "genre", "drum and bass"),
    ]
    (row,) = survey.left_out
    assert (row["where"], row["reason"]) == ("1234749.LOFI.key", "missing audio")


def test_giantsteps_has_both_versions_of_its_tempi(tmp_path):
    write(tmp_path / "set/annotations_v2/tempo/1.LOFI.bpm", "139.5")
    write(tmp_path / "set/annotations_v2/tempo/2.LOFI.bpm", "0.0")
    write(tmp_path / "set/annotations/tempo/1.LOFI.bpm", "140")
    write(tmp_path / "set/annotations/genre/2.LOFI.genre", "hip-hop")
    assert read("giantsteps/tempo", tmp_path) == [
        ("test", "tempo", "139.5", "The tempo is 139.5 BPM."),
        ("test", None, None, ""),
        ("test", "genre", "hip hop", "The genre is hip hop."),
    ]
    assert read("giantsteps/tempo_v1", tmp_path) == [
        ("test", "tempo", "140", "The tempo is 140 BPM.")
    ]


@pytest.mark.parametrize(
    "name, file, text, reason",
    [
        ("key", "annotations/key/1.LOFI.key", HTML, "1.LOFI.key: must hold a key"),
        ("key", "annotations/key/1.LOFI.key", "174.0", "1.LOFI.key: must hold a key"),
        ("key", "annotations/key/1.txt", "C major", "key: has no .key files"),
        ("key", "annotations/tempo/1.bpm", "9", "there is no annotations/key in it"),
        (
            "tempo",
            "annotations_v2/tempo/1.bpm",
            HTML,
            "1.bpm: must hold a tempo in BPM",
        ),
        ("tempo", "annotations_v2/tempo/1.bpm", "nan", "1.bpm: must hold a tempo"),
        ("tempo", "annotations_v2/tempo/1.bpm", "-3", "1.bpm: must hold a tempo"),
    ],
)
def test_giantsteps_refuses_other_files(tmp_path, name, file, text, reason):
    write(tmp_path / file, text)
    assert reason in refusal(f"giantsteps/{name}", tmp_path)


def test_giantsteps_refuses_what_is_no_genre(tmp_path):
    write(tmp_path / "annotations/key/1.LOFI.key", "C major")
    genre = tmp_path / "annotations/genre/1.LOFI.genre"
    for text in (HTML, "", "a b c d e f"):
        write(genre, text)
        assert "1.LOFI.genre: must hold a genre" in refusal("giantsteps", tmp_path)
    genre.unlink()
    genre.symlink_to("nowhere")
    assert "1.LOFI.genre cannot be read" in refusal("giantsteps", tmp_path)


def gtzan(folder, **lists):
    for split in ("train", "valid", "test"):
        write(folder / f"{split}_filtered.txt", lists.get(split, ""))


def test_gtzan_has_the_split_without_its_faults(tmp_path):
    gtzan(
        tmp_path,
        train="blues/blues.00029.wav\njazz/jazz.00054.wav\n",
        valid="hiphop/hiphop.00002.wav\n",
        test="rock/rock.00010.wav",
    )
    sound(tmp_path / "audio/genres_original/blues/blues.00029.wav", 30.6)
    sound(tmp_path / "audio/hiphop.00002.flac", 30)
    # As on Kaggle: what was broken off is no sound.
    (tmp_path / "audio/genres_original/jazz").mkdir()
    (tmp_path / "audio/genres_original/jazz/jazz.00054.wav").write_bytes(b"RIFF" * 30)
    survey = make("gtzan", tmp_path).survey
    assert [(r.split, r.attribute, r.value) for r, _ in survey.records] == [
        ("train", "genre", "blues"),
        ("validation", "genre", "hip hop"),
    ]
    assert [(row["where"], row["reason"]) for row in survey.left_out] == [
        ("train_filtered.txt:2", "unknown length"),
        ("test_filtered.txt:1", "missing audio"),
    ]
    rows = read("gtzan/all", tmp_path)
    assert len(rows) == 1000 and {row[0] for row in rows} == {"test"}
    assert len({row[2] for row in rows}) == 10


@pytest.mark.parametrize("line", [HTML, "blues/jazz.00001.wav", "1\n2", "polka.00001"])
def test_gtzan_refuses_other_lists(tmp_path, line):
    gtzan(tmp_path, valid=line)
    message = refusal("gtzan", tmp_path)
    assert "valid_filtered.txt:1: must be a clip such as blues/blues.0" in message
    (tmp_path / "test_filtered.txt").unlink()
    gone = tmp_path / "valid_filtered.txt"
    write(gone, "")
    assert "there is no test_filtered.txt" in refusal("gtzan", tmp_path)


SONG = """album: Shaking Through Volume 2
artist: A Classic Education
genre: World/Folk
instrumental: 'no'
mix_filename: A_B_MIX.wav
stems:
  S01:
    component: bass
    instrument: electric bass
  S02:
    instrument:
    - violin
    - fx/processed sound
  S03:
    instrument: electric bass
  S04:
    instrument: Main System
"""


def medleydb(folder, song=SONG):
    write(folder / "resources/tracklist_v1.txt", "A_B\n")
    write(folder / "data/Metadata/A_B_METADATA.yaml", song)
    write(folder / "data/Metadata/C_D_METADATA.yaml", "of another version")


def test_medleydb_asks_for_the_songs_of_its_version(tmp_path):
    medleydb(tmp_path / "medleydb")
    assert read("medleydb", tmp_path) == [
        ("test", "genre", "World, Folk", "The genres are World and Folk."),
        (
            "test",
            "instruments",
            "electric bass, violin",
            "The instruments are electric bass and violin.",
        ),
        ("test", "vocals", "yes", "Yes, there are vocals."),
    ]
    sound(tmp_path / "audio/Audio/A_B/A_B_MIX.wav", 1)
    assert len(make("medleydb", tmp_path).survey.records) == 3
    assert "there is no resources/tracklist_v2.txt" in refusal("medleydb/v2", tmp_path)
    medleydb(tmp_path / "medleydb", SONG.replace("World/Folk", "Singer/Songwriter"))
    assert read("medleydb", tmp_path)[0][2] == "Singer-Songwriter"


@pytest.mark.parametrize(
    "song, reason",
    [
        (HTML, "cannot be read as YAML"),
        ("a text", "is not the metadata of a song"),
        ("genre: [", "cannot be read as YAML"),
        ("when: 2014-13-45", "cannot be read as YAML"),
        ("[" * 400, "cannot be read as YAML"),
        (SONG.replace("genre: World/Folk", "genre: ''"), "'genre' is missing, empty"),
        (SONG.replace("mix_filename", "mix"), "'mix_filename' is missing"),
        (SONG.replace("'no'", "'maybe'"), "'instrumental' must be 'yes' or 'no'"),
        (SONG.partition("stems:")[0], "has no 'stems'"),
        (
            SONG.replace("    instrument: electric bass\n", ""),
            "stem 'S01' has no 'instr",
        ),
    ],
)
def test_medleydb_refuses_a_song_by_its_file(tmp_path, song, reason):
    medleydb(tmp_path, song)
    message = refusal("medleydb", tmp_path)
    assert "A_B_METADATA.yaml: " in message and reason in message


def test_music_text_clips_are_stretches_of_videos(tmp_path):
    write(
        tmp_path / "train.csv",
        'video_id,start,end,text\n-0Gj8-vB1q4,115,125,"A ""soft"", slow song."\n'
        "bbbbbbbbbbb,10.0,20.0,A march.\n",
    )
    write(tmp_path / "test.csv", "video_id,start,end,text\nccccccccccc,0,10,\n")
    sound(tmp_path / "audio/-0Gj8-vB1q4.wav", 130)
    sound(tmp_path / "audio/[bbbbbbbbbbb]-[10-20].ogg", 10)
    survey = make("music_text_clips", tmp_path).survey
    (one, seconds), (two, _) = survey.records
    assert (one.start, one.end, seconds, one.split) == (115, 125, 10, "train")
    assert (one.question, one.answer) == ("", 'A "soft", slow song.')
    assert (two.start, two.answer) == (None, "A march.")
    assert survey.reasons() == {"empty answer": 1}
    (tmp_path / "train.csv").unlink()
    assert [row[0] for row in read("music_text_clips", tmp_path)] == ["test"]


@pytest.mark.parametrize(
    "text, reason",
    [
        (HTML, "test.csv:1: there is no column video_id, start, end, text"),
        ("ytid,start_s,end_s,caption\n", "there is no column video_id, start, end"),
        ("video_id,start,end,text\n,0,10,A\n", "csv:2: 'video_id' is empty"),
        ("video_id,start,end,text\na,x,10,A\n", "csv:2: 'start' must be a number"),
        (
            "video_id,start,end,text\na,9,3,A\n",
            "csv:2: 'end' must be later than 'start",
        ),
        ("video_id,start,end,text\na,0,10\n", "csv:2: the number of cells"),
    ],
)
def test_music_text_clips_refuses_other_files(tmp_path, text, reason):
    assert "there is no train.csv or test.csv" in refusal("music_text_clips", tmp_path)
    write(tmp_path / "test.csv", text)
    assert reason in refusal("music_text_clips", tmp_path)


DESCRIBED = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,"
)
DESCRIBED += "path,duration\n"


def test_song_describer_has_all_captions_or_those_that_were_checked(tmp_path):
    write(
        tmp_path / "song_describer.csv",
        DESCRIBED + '1,1004034,"Calm, slow.",True,3,1,2,34/1004034.mp3,202.5\n'
        "2,1004034,A guitar.,False,,1,2,34/1004034.mp3,202.5\n"
        "3,214,Loud.,,1,1,2,14/214.mp3,124.6\n",
    )
    sound(tmp_path / "audio/audio/34/1004034.2min.wav", 1)
    survey = make("song_describer", tmp_path).survey
    assert [(r.split, r.question, r.answer) for r, _ in survey.records] == [
        ("test", "", "Calm, slow."),
        ("test", "", "A guitar."),
    ]
    assert survey.left_out[0]["audio"] == "14/214.2min.mp3"
    assert [row[3] for row in read("song_describer/valid", tmp_path)] == ["Calm, slow."]


@pytest.mark.parametrize(
    "text, reason",
    [
        (HTML, "csv:1: there is no column caption, is_valid_subset, path"),
        (
            DESCRIBED + "1,2,A.,perhaps,1,1,1,a.mp3,9\n",
            "'is_valid_subset' must be True",
        ),
        (DESCRIBED + "1,2,A.,True,1,1,1,,9\n", "csv:2: 'path' is empty"),
        (DESCRIBED + "1,2,A.,True\n", "csv:2: the number of cells"),
    ],
)
def test_song_describer_refuses_other_files(tmp_path, text, reason):
    write(tmp_path / "song_describer.csv", text)
    assert reason in refusal("song_describer", tmp_path)


NEW = ["fma", "giantsteps", "gtzan", "magnatagatune", "medleydb", "mtg_jamendo"]
NEW += ["music_text_clips", "musicnet", "song_describer"]


@pytest.mark.parametrize("name", NEW)
def test_a_pipe_or_a_utf_16_file_is_refused(tmp_path, name):
    files = {
        "fma": "genres.csv",
        "giantsteps": "annotations/key/1.key",
        "gtzan": "train_filtered.txt",
        "magnatagatune": "annotations_final.csv",
        "medleydb": "resources/tracklist_v1.txt",
        "mtg_jamendo": "splits/split-0/autotagging-train.tsv",
        "music_text_clips": "train.csv",
        "musicnet": "musicnet_metadata.csv",
        "song_describer": "song_describer.csv",
    }
    if name == "fma":
        fma(tmp_path, ("2", "test", "small", "", "[2]"))
    path = tmp_path / files[name]
    write(path, "")
    path.write_bytes("a line\n".encode("utf-16-le"))
    assert f"{path}: has NUL characters" in refusal(name, tmp_path)
    path.write_bytes(b"caf\xe9\n")
    assert f"{path}: cannot be read as UTF-8" in refusal(name, tmp_path)


def test_a_tagged_corpus_is_built_with_its_facts_and_description(tmp_path):
    gtzan(tmp_path, train="blues/blues.00029.wav\n", test="pop/pop.00001.wav\n")
    sound(tmp_path / "audio/blues.00029.wav", 30)
    made = make("gtzan", tmp_path)
    with pytest.raises(UserError, match="1 of 2 rows lack their audio, so nothing was"):
        build.build(made, allow_missing=False)
    folder = build.build(make("gtzan", tmp_path), allow_missing=True)
    (record,) = corpus.load(folder)
    assert (record.attribute, record.value) == ("genre", "blues")
    info = json.loads((folder / "dataset_info.json").read_text())
    assert "train_filtered.txt    443 clips" in info["description"]
