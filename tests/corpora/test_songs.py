"""A corpus of JSONL: what is read, and what each mistake is answered with."""

import json
import os
import socket

import pytest

from musilingo_jax.corpora import songs
from musilingo_jax.runtime.errors import UserError


def corpus(folder, *lines):
    (folder / "a.wav").write_bytes(b"sound")
    path = folder / "songs.jsonl"
    path.write_text(
        "".join(
            (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False))
            + "\n"
            for line in lines
        ),
        encoding="utf-8",
    )
    return path


def test_lines_become_records(tmp_path):
    path = corpus(
        tmp_path,
        {"audio": "a.wav", "answer": "A calm song."},
        "",
        {
            "audio": "a.wav",
            "question": "How\u2028fast?",
            "answer": "Fast.",
            "split": "test",
            "attribute": "tempo",
            "value": "fast",
        },
    )
    caption, question = songs.load(path)
    assert caption.audio == tmp_path / "a.wav"
    assert (caption.question, caption.answer) == ("", "A calm song.")
    assert (caption.split, caption.attribute, caption.value) == ("train", None, None)
    assert (question.question, question.split) == ("How\u2028fast?", "test")
    assert (question.attribute, question.value) == ("tempo", "fast")
    assert question.clip == caption.clip and caption.clip.startswith("a.wav:5:")


def test_a_folder_stands_for_its_songs_file(tmp_path):
    path = corpus(tmp_path, {"audio": "a.wav", "answer": "A song."})
    assert songs.load(tmp_path) == songs.load(path)


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path):
    path = corpus(tmp_path)
    line = '{"audio": "a.wav", "answer": "Ein schönes Lied."}\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + line.encode() * 2)
    assert [r.answer for r in songs.load(path)] == ["Ein schönes Lied."] * 2


def test_the_clip_id_moves_with_the_corpus_and_changes_with_the_file(tmp_path):
    line = {"audio": "../a.wav", "answer": "A song."}
    (tmp_path / "a.wav").write_bytes(b"sound")
    ids = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (record,) = songs.load(corpus(tmp_path / name, line))
        ids.append(record.clip)
    assert ids[0] == ids[1] and ids[0].startswith("../a.wav:5:")
    # Another file of the same size and time is another clip, wherever they differ.
    for place in (0, 300_000):
        sound = bytearray(300_001)
        (tmp_path / "a.wav").write_bytes(sound)
        os.utime(tmp_path / "a.wav", ns=(0, 1))
        (before,) = songs.load(tmp_path / "here")
        sound[place] = 1
        (tmp_path / "a.wav").write_bytes(sound)
        os.utime(tmp_path / "a.wav", ns=(0, 1))
        (after,) = songs.load(tmp_path / "here")
        assert before.clip != after.clip


def table(folder, text, name="songs.csv"):
    (folder / "a.wav").write_bytes(b"sound")
    (folder / name).write_bytes(text.encode("utf-8-sig"))
    return folder / name


def test_a_table_says_the_same_as_lines(tmp_path):
    lines = [
        {"audio": "a.wav", "answer": 'A "calm",\nlong song.', "split": "test"},
        {"audio": "a.wav", "question": "Fast?", "answer": "No; slow.", "start": 1.5},
    ]
    expected = songs.load(corpus(tmp_path, *lines))
    head = "audio,question,answer,split,start"
    rows = ['a.wav,,"A ""calm"",\nlong song.",test,', "a.wav,Fast?,No; slow.,,1.5", ""]
    for end in ("\n", "\r\n"):
        path = table(tmp_path, end.join([head, *rows]))
        texts = [(r.question, r.answer) for r in songs.load(path)]
        assert texts == [(r.question, r.answer) for r in expected]
    assert songs.load(path)[1] == expected[1]
    # As spreadsheets elsewhere write it.
    text = "audio;answer;start;split\na.wav;No, slow.;1,5;\n"
    for path in (
        table(tmp_path, text),
        table(tmp_path, text.replace(";", "\t"), "songs.tsv"),
    ):
        (record,) = songs.load(path)
        assert (record.answer, record.start, record.split) == (
            "No, slow.",
            1.5,
            "train",
        )


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", r"1: there is no column audio, answer"),
        ("audio,question\n", r"1: there is no column answer"),
        ("audio,answer,answer\n", r"1: two columns have the same name"),
        ("audio,answer,author\na.wav,b,c\n", r"2: unknown key author"),
        ("audio,answer\na.wav,Calm, and slow.\n", r"2: has 3 cells, not 2; put text"),
        ('audio,answer\n\na.wav,"A\nb"\na.wav,\n', r"5: `answer` is missing, empty"),
        ('audio,answer\na.wav,"A\n', r"2: is not CSV"),
        ("audio,answer,start\na.wav,b,later\n", r"2: `start` must be a number"),
        ("audio,answer\n", "contains no songs"),
    ],
)
def test_mistakes_in_a_table_are_named_by_line(tmp_path, text, reason):
    with pytest.raises(UserError, match=rf"songs\.csv:? ?{reason}"):
        songs.load(table(tmp_path, text))


def test_a_stretch_of_a_file_is_a_clip_of_its_own(tmp_path):
    line = {"audio": "a.wav", "answer": "A song."}
    whole, part, rest, same = songs.load(
        corpus(
            tmp_path,
            line,
            {**line, "start": 1.23456, "end": 9},
            {**line, "start": 1},
            {**line, "start": 1, "end": None},
        )
    )
    assert (whole.start, whole.end) == (None, None)
    assert (part.start, part.end) == (1.235, 9)
    assert part.clip == whole.clip + "@1235-9000ms"
    assert rest.clip == same.clip == whole.clip + "@1000-ms"
    (tmp_path / "b.npy").write_bytes(b"array")
    (array,) = songs.load(corpus(tmp_path, {**line, "audio": "b.npy", "rate": 16000}))
    assert array.rate == 16000 and array.clip.endswith("#16000Hz")


def test_a_folder_of_songs_can_be_captioned(tmp_path):
    for name in ("b.MP3", "deep/a.flac", "cover.jpg", ".trash/c.wav", "d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    records = songs.load(tmp_path)
    assert [r.audio for r in records] == [tmp_path / "b.MP3", tmp_path / "deep/a.flac"]
    assert {(r.question, r.answer, r.split) for r in records} == {("", "", "test")}
    assert records[1].clip.startswith("deep/a.flac:5:")


def test_links_are_followed_once_and_what_is_left_out_is_reported(tmp_path, capsys):
    folder, elsewhere = tmp_path / "songs", tmp_path / "elsewhere"
    for path in (folder / "z/a.wav", folder / "dir.wav/b.wav", elsewhere / "c.wav"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"sound")
    (folder / "a.wav").symlink_to(elsewhere / "c.wav")
    (folder / "album").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "z")  # Listed by its own path already.
    (elsewhere / "circle").symlink_to(folder)
    (folder / "z/up").symlink_to("..")
    assert [str(r.audio.relative_to(folder)) for r in songs.load(folder)] == [
        "a.wav",
        "album/c.wav",
        "dir.wav/b.wav",
        "z/a.wav",
    ]
    assert capsys.readouterr().err == ""

    (folder / "gone").symlink_to(tmp_path / "not mounted")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / ".hidden.wav").symlink_to("nowhere")
    (folder / "cover.jpg").write_bytes(b"picture")
    (folder / "y.npy").write_bytes(b"array")
    os.mkfifo(folder / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.wav"))
    assert len(songs.load(folder)) == 4
    assert capsys.readouterr().err == (
        f"{folder}: 4 songs, and 5 files left out, the first: {folder}/gone is a link "
        "to nothing\n"
    )


def test_a_folder_without_one_song_that_can_be_read_says_why(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"array")
    with pytest.raises(
        UserError, match=r"no songs that can be read: .*a\.npy does not"
    ):
        songs.load(tmp_path)


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/deep\xff")
    os.mkdir(bad)
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / bad / "cover.jpg").write_bytes(b"picture")
    assert len(songs.load(tmp_path)) == 1
    corpus(tmp_path / bad, GOOD)
    for source in (tmp_path, bad, f"{bad}/songs.jsonl"):
        with pytest.raises(
            UserError, match=r"deep\\udcff.*: its name is not UTF-8"
        ) as e:
            songs.load(source)
        str(e.value).encode()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UserError, match=r"songs\.jsonl:1: .*pipe\.wav is missing"):
        songs.load(corpus(tmp_path, {**GOOD, "audio": "pipe.wav"}))


GOOD = {"audio": "a.wav", "answer": "A song."}


@pytest.mark.parametrize(
    "line, reason",
    [
        ("{audio: a.wav}", "not JSON"),
        ('["a.wav"]', "is not a JSON object but an array"),
        ({**GOOD, "anwser": "x"}, "unknown key anwser"),
        ({"audio": "a.wav"}, "`answer` is missing"),
        ({**GOOD, "answer": "  "}, "`answer` is missing, empty"),
        ({**GOOD, "answer": 120}, "`answer` is missing, empty or not text"),
        ({"answer": "A song."}, "`audio` is missing"),
        ({**GOOD, "attribute": "tempo", "value": 120}, "`value` must be text"),
        ({**GOOD, "attribute": "tempo"}, "belong together"),
        ({**GOOD, "attribute": "tempo", "value": ""}, "`value` is empty"),
        ({**GOOD, "attribute": " ", "value": "x"}, "`attribute` is empty"),
        (
            r'{"audio": "a.wav", "answer": "x", "question": "\ud800"}',
            "`question` contains half a character",
        ),
        ("[" * 100_000, "is JSON that is nested too deeply"),
        ("9" * 5000, "is not JSON"),
        ({**GOOD, "start": "1"}, "`start` must be a number, not '1'"),
        ({**GOOD, "start": True}, "`start` must be a number"),
        ({**GOOD, "end": -1}, "`end` must be 0 or more"),
        ({**GOOD, "start": float("nan")}, "`start` must be 0 or more"),
        ({**GOOD, "end": 10**400}, "`end` must be 0 or more"),
        ({**GOOD, "start": 5, "end": 5.0001}, "`end` must be later than `start`"),
        ({**GOOD, "rate": 44100}, "`rate` is for .npy files"),
        ({**GOOD, "audio": "a.npy"}, "give it as `rate`"),
        (
            {**GOOD, "audio": "a.npy", "rate": 1.5},
            "`rate` must be a whole number of samples",
        ),
        ({**GOOD, "audio": "a\0.wav"}, "`audio` contains a NUL"),
        ({**GOOD, "audio": "b.wav"}, "b.wav is missing"),
        ({**GOOD, "audio": "."}, "is missing"),
    ],
)
def test_mistakes_are_named_by_line(tmp_path, line, reason):
    path = corpus(tmp_path, GOOD, line)
    with pytest.raises(UserError, match=rf"songs\.jsonl:2: .*{reason}"):
        songs.load(path)


def test_missing_files_are_counted(tmp_path):
    path = corpus(tmp_path, *({**GOOD, "audio": f"{n}.wav"} for n in range(3)), GOOD)
    with pytest.raises(UserError, match=r":1: .*0\.wav is missing \(and 2 more\)"):
        songs.load(path)


def test_nothing_to_load_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no such file; a corpus is"):
        songs.load(tmp_path)
    with pytest.raises(UserError, match="musilingo-tiny-corpus"):
        songs.load("no/such/corpus.jsonl")
    for content in ("", "\n \n"):
        (tmp_path / "songs.jsonl").write_text(content)
        with pytest.raises(UserError, match="contains no songs"):
            songs.load(tmp_path)
    for content, encoding in ((b"\xff\xfe\x00", "UTF-16"), (b"\xff", "UTF-8")):
        (tmp_path / "songs.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=f"cannot be read as {encoding} text"):
            songs.load(tmp_path)


def test_a_songs_file_that_is_gone_is_not_replaced_by_another(tmp_path):
    table(tmp_path, "audio,answer\na.wav,x\n")
    assert len(songs.load(tmp_path)) == 1
    (tmp_path / "songs.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"songs\.jsonl: is not a regular file"):
        songs.load(tmp_path)
