"""Files of rows in every form in which people and programs write them."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.corpora import row_files, songs
from musilingo_jax.corpora.musiccaps import MusicCaps
from musilingo_jax.corpora.own_songs import OwnSongs
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.unicode_names import as_on_disk

ROWS = [{"audio": "a.ogg", "answer": "Calm."}, {"audio": "é.ogg", "answer": "A\u2028b"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read(path):
    return list(row_files.read_rows(path))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (LINES, (1, 2)),
        (LINES.replace("\n", "\r\n"), (1, 2)),
        ("\n\n" + LINES, (3, 4)),
        (json.dumps(ROWS), (1, 1)),
        (json.dumps(ROWS, indent=1), (2, 6)),
        ("\r\n " + json.dumps(ROWS, indent=1).replace("\n", "\r\n"), (3, 7)),
        ("\n".join(json.dumps(row, indent=2) for row in ROWS), (1, 5)),
        ("".join(json.dumps(row, indent=0) for row in ROWS), (1, 4)),
    ],
)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be-mark"]
)
def test_json_in_lines_or_in_an_array_in_any_encoding(tmp_path, text, lines, encoding):
    path = tmp_path / "rows.jsonl"
    if encoding == "utf-16-be-mark":
        path.write_bytes(("\ufeff" + text).encode("utf-16-be"))
    else:
        path.write_bytes(text.encode(encoding))
    assert read(path) == [
        (f"{path}:{n}", row) for n, row in zip(lines, ROWS, strict=True)
    ]


def test_rows_inside_of_an_object(tmp_path):
    path = tmp_path / "rows.json"
    for indent in (None, 2):
        path.write_text(json.dumps({"version": 1, "data": ROWS}, indent=indent))
        assert read(path) == [(f"{path}: data[{n}]", row) for n, row in enumerate(ROWS)]
        by_id = {"17": ROWS[0], "18": ROWS[1] | {"id": 3}}
        path.write_text(json.dumps(by_id, indent=indent))
        assert [row["id"] for _, row in read(path)] == ["17", 3]
    path.write_text(json.dumps(ROWS[0]))  # One row is no wrapper.
    assert read(path) == [(f"{path}:1", ROWS[0])]
    path.write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(UserError, match="rows in 'train' and 'test': keep one"):
        read(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables(tmp_path, end, delimiter, encoding):
    rows = ["audio,answer", 'a.ogg,"Calm."', "", "é.ogg,x"]
    text = end.join(row.replace(",", delimiter) for row in rows)
    path = tmp_path / "rows.CSV"
    path.write_bytes(text.encode(encoding))
    assert [row for _, row in read(path)] == [
        {"audio": "a.ogg", "answer": "Calm."},
        {"audio": "é.ogg", "answer": "x"},
    ]
    if end == "\n":
        path.write_bytes(f"sep={delimiter}\n{text}".encode(encoding))
        assert [row["answer"] for _, row in read(path)] == ["Calm.", "x"]


def test_a_cell_may_hold_any_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f'audio,answer\na.ogg,"{"long " * 40_000}"\n')
    assert len(read(path)[0][1]["answer"]) == 200_000


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_table_holds_the_same_text_with_any_line_ends(tmp_path, end):
    path, text = tmp_path / "rows.csv", 'audio,answer\na.ogg,"One.\n\nTwo."\nb.ogg,x\n'
    for content in (text, "sep=,\n" + text):
        path.write_text(content, newline="")
        before = read(path)
        assert before[0][1]["answer"] == "One.\n\nTwo."
        path.write_text(content.replace("\n", end), newline="")
        assert read(path) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1}\n{"a": 2\n', r"rows.jsonl:2: is not JSON"),
        (b'{"a": 1\n{"b": 2}\n', r"rows.jsonl:1: is not JSON"),
        (b'[{"a": 1},\n {"b" 2}]', r"rows.jsonl: is not JSON: .* line 2 column"),
        (b'[{"a": 1},\n 5]', r"rows.jsonl:2: is not a JSON object but a number"),
        (b'{"a": 1, "b": 2, "a": 3}', r"rows.jsonl:1: .* the key 'a' twice"),
        (b'[\n{"a": 1, "a": 3}]', r"rows.jsonl: .* the key 'a' twice"),
        (b"[" * 100_000, r"rows.jsonl: is JSON that is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"rows.jsonl:1: is not JSON"),
        (b'{"a": "\xe9"}', r"cannot be read as UTF-8 text .*at byte 7\): save it"),
        ('{"a": 1}'.encode("utf-16-le"), r"has NUL char.*UTF-16 without"),
        (b"\xff\xfe\x00", "cannot be read as UTF-16 text"),
    ],
)
def test_mistakes_are_named(tmp_path, content, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read(path)


def test_pipes_and_folders_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "songs.jsonl")
    with pytest.raises(UserError, match="cannot be read: is not a regular file"):
        read(tmp_path / "songs.jsonl")
    with pytest.raises(UserError, match="is not a regular file"):
        songs.load(tmp_path / "songs.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.csv", "a.tsv"]))
@settings(deadline=None, max_examples=200)
def test_no_bytes_break_the_reader(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        for place, row in row_files.read_rows(path):
            assert place.startswith(str(path)) and isinstance(row, dict)
    except UserError as error:
        assert str(path) in str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=2),
    st.sampled_from(["lines", "array", "indented"]),
)
@settings(deadline=None)
def test_what_is_written_is_read(tmp_path_factory, rows, form):
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    if form == "lines":
        text = "\n".join(map(json.dumps, rows))
    else:
        text = json.dumps(rows, indent=None if form == "array" else 2)
    path.write_text(text)
    assert [row for _, row in read(path)] == rows


COMPOSED, DECOMPOSED = "Caf\u00e9 Zo\u00eb", "Cafe\u0301 Zoe\u0308"


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED])
def test_names_are_found_in_either_unicode_form(tmp_path, written, on_disk):
    sound = tmp_path / on_disk / f"{on_disk}.ogg"
    sound.parent.mkdir()
    sound.write_bytes(b"sound")
    row = {"audio": f"{written}/{written}.ogg", "answer": "A song."}
    (tmp_path / "songs.jsonl").write_text(json.dumps(row, ensure_ascii=False), "utf-8")
    (record,) = songs.load(tmp_path)
    assert record.audio == sound
    made = OwnSongs(source=tmp_path, audio=tmp_path, data_dir=tmp_path / "out")
    ((found, _),) = made.survey.records
    assert found.audio == sound
    # A published corpus finds its sound by name, a corpus itself is found by its own.
    (tmp_path / "musiccaps-public.csv").write_text(
        f"ytid,start_s,end_s,caption,is_audioset_eval\n{written},0,10,A song.,True\n"
    )
    caps = MusicCaps(source=tmp_path, audio=tmp_path, data_dir=tmp_path / "out")
    assert "missing audio" not in caps.survey.reasons()
    (sound.parent / "songs.jsonl").write_text(
        json.dumps({"audio": f"{written}.ogg", "answer": "A song."})
    )
    assert len(songs.load(tmp_path / written)) == 1


def test_a_name_with_two_look_alikes_is_not_guessed(tmp_path):
    mixed = f"{COMPOSED[:4]}{DECOMPOSED[5:]}.ogg"
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / f"{name}.ogg").touch()
    assert as_on_disk(tmp_path / mixed) == tmp_path / mixed
    assert as_on_disk(tmp_path / "none é.ogg") == tmp_path / "none é.ogg"
    assert as_on_disk(tmp_path / "no" / "é.ogg") == tmp_path / "no" / "é.ogg"
