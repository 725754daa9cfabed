"""A corpus of JSONL: what is read, and what each mistake is answered with."""

import json
import os

import pytest

from musilingo_jax.corpora import songs
from musilingo_jax.errors import UserError


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


GOOD = {"audio": "a.wav", "answer": "A song."}


@pytest.mark.parametrize(
    "line, reason",
    [
        ("{audio: a.wav}", "no JSON"),
        ('["a.wav"]', "no JSON object"),
        ({**GOOD, "anwser": "x"}, "unknown key anwser"),
        ({"audio": "a.wav"}, "`answer` is missing"),
        ({**GOOD, "answer": "  "}, "`answer` is missing, empty"),
        ({**GOOD, "answer": 120}, "`answer` is missing, empty or no text"),
        ({"answer": "A song."}, "`audio` is missing"),
        ({**GOOD, "attribute": "tempo", "value": 120}, "`value` must be text"),
        ({**GOOD, "attribute": "tempo"}, "go together"),
        ({**GOOD, "attribute": "tempo", "value": ""}, "`value` is empty"),
        ({**GOOD, "attribute": " ", "value": "x"}, "`attribute` is empty"),
        (
            r'{"audio": "a.wav", "answer": "x", "question": "\ud800"}',
            "`question` holds half a character",
        ),
        ("[" * 100_000, "is no JSON"),
        ({**GOOD, "audio": "b.wav"}, "b.wav is missing"),
        ({**GOOD, "audio": "."}, "is missing"),
    ],
)
def test_mistakes_are_told_by_line(tmp_path, line, reason):
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
        with pytest.raises(UserError, match="holds no songs"):
            songs.load(tmp_path)
    (tmp_path / "songs.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        songs.load(tmp_path)
