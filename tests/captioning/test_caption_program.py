"""`musilingo caption FOLDER --out=DIR`: a library, tasks, kills, what is refused."""

import functools
import json

import pytest
import soundfile
from helpers import fake_asker, programs
from helpers.fake_asker import FakeAsker
from helpers.letter_job import files
from helpers.programs import ROOT

from musilingo_jax import caption, command
from musilingo_jax.captioning import captions
from musilingo_jax.captioning.asker import Sources
from musilingo_jax.corpora.records import clip_id
from musilingo_jax.runtime.errors import UsageError, UserError

CLIPS = ROOT / "musilingo_jax/assets/musilingo-tiny-corpus/clips"
CAPTIONS = [["A calm piece at 120 BPM."], ["It runs at 90 BPM. Soft."], ["A waltz."]]
# What is known is not measured, which would take seconds.
KNOWN = {"bpm": "120", "key": "A minor", "timesignature": "4/4"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    lines = []
    for number in range(len(CAPTIONS)):
        name = f"{number}.wav"
        soundfile.write(folder / name, fake_asker.tone(number), fake_asker.RATE)
        lines += [
            {"audio": name, "attribute": attribute, "value": value}
            for attribute, value in KNOWN.items()
        ]
    lines.append({"audio": "0.wav", "attribute": "pace", "value": "slow"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "songs.jsonl").write_text(text)
    return folder


@pytest.fixture
def asked(monkeypatch):
    """All that is asked of the model, which is a fake one."""
    asker = FakeAsker(CAPTIONS)

    def load(settings):
        return functools.partial(captions.rows, asker, None, settings, "1")

    monkeypatch.setattr(captions, "load", load)
    monkeypatch.setattr(Sources, "identity", lambda sources: {"adapter": "7f"})
    monkeypatch.setattr(caption, "_SHARD", 1)
    return asker.asked


def run(folder, out, *words):
    given = caption.parser().parse_args([str(folder), f"--out={out}", *words])
    caption.main(given)


def rows_of(out):
    lines = (out / "captions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_library_is_captioned(folder, tmp_path, asked, capsys):
    out = tmp_path / "out"
    run(folder, out, "--format=jsonl,csv,sidecar,ace-step")
    told = capsys.readouterr()
    assert "captions: 1 kept, 0 regenerated, 1 shortened, 1 dropped\n" in told.out
    assert f"{out}/captions.csv: 3 rows\n" in told.out
    note = "note: songs.jsonl gives 1 values that no field is made of, the first: pace"
    assert note in told.err
    assert "note: ace-step lacks 1 songs, the first: 2.wav has no caption" in told.err
    rows = rows_of(out)
    assert [row["audio"] for row in rows] == ["0.wav", "1.wav", "2.wav"]
    values = [row["caption"]["value"] for row in rows]
    assert values == ["A calm piece at 120 BPM.", "Soft.", None]
    assert {"report.md", "report.json", "faults.jsonl", "distributions.png"} <= {
        path.name for path in out.iterdir()
    }


def test_tasks_kills_and_order_make_the_same_files(folder, tmp_path, asked):
    words = ["--format=jsonl,csv,parquet,sidecar,webdataset"]
    one, two = tmp_path / "one", tmp_path / "two"
    run(folder, one, *words)
    for task in (2, 0, 1):
        run(folder, two, *words, f"--task={task}", "--tasks=3")
        assert (two / "captions.jsonl").exists() == (task == 1)
    assert files(one) == files(two)
    before, count = files(one), len(asked)
    (one / "00000001.jsonl").unlink()
    (one / "report.md").unlink()
    run(folder, one, *words)
    assert files(one) == before
    assert {number for number, *_ in asked[count:]} == {1}  # The others are not redone.


def test_what_the_file_knows_is_a_part_of_the_song(folder, tmp_path, asked):
    out = tmp_path / "out"
    run(folder, out)
    lines = (folder / "songs.jsonl").read_text().splitlines(keepends=True)
    (folder / "songs.jsonl").write_text("".join(lines).replace('"120"', '"90"', 1))
    count = len(asked)
    run(folder, out)
    assert {number for number, *_ in asked[count:]} == {0}
    assert rows_of(out)[0]["bpm"]["value"] == 90.0
    assert rows_of(out)[0]["caption"]["value"] is None


def test_another_vocabulary_is_another_job(folder, tmp_path, asked):
    out, tags = tmp_path / "out", tmp_path / "tags.txt"
    run(folder, out)
    tags.write_text("genre: calm, waltz\n")
    with pytest.raises(UserError, match="these captions were made with tags "):
        run(folder, out, f"--tags={tags}")
    run(folder, tmp_path / "other", f"--tags={tags}")
    found = [row["genre"]["value"] for row in rows_of(tmp_path / "other")]
    assert found == ["calm", "calm", "waltz"]


def test_songs_that_cannot_be_read_are_listed(folder, tmp_path, asked, capsys):
    (folder / "1.wav").write_bytes(b"no sound")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="1 of 3 cannot be captioned; all others"):
        run(folder, out)
    assert len(rows_of(out)) == 2
    assert "1.wav" in (out / "report.md").read_text().partition("## Not read")[2]
    run(folder, out, "--allow-missing", "--limit=2")
    told = capsys.readouterr()
    assert "1 of 2 cannot be captioned:" in told.out
    assert "--limit: 2 of 3 songs" in told.err
    assert [row["audio"] for row in rows_of(out)] == ["0.wav"]


def test_a_dry_run_tells_and_writes_nothing(folder, tmp_path, asked, capsys):
    tags = tmp_path / "tags.txt"
    tags.write_text("genre: rock, pop\n")
    out = tmp_path / "out"
    run(folder, out, "--dry-run", f"--tags={tags}", "--format=jsonl,csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 songs, 0.00 hours"
    assert lines[1].startswith("model: musilingo-tiny-")
    assert "  genre          chosen among 2 tags" in lines
    assert "  bpm            measured; of 3 songs, given" in lines
    assert lines[-1] == "files: jsonl, csv, and a report; nothing was written"
    assert not out.exists() and asked == []


def test_annotations_are_not_measured_again(folder, tmp_path, asked, capsys):
    (folder / "songs.jsonl").unlink()
    out, path = tmp_path / "out", tmp_path / "annotations.jsonl"
    made = {"source": "madmom", "version": "9", "confidence": 1.0}
    measured = {"tempo": 90.0, "key": "A minor", "metre": 3}
    fields = {name: {"value": value, **made} for name, value in measured.items()}
    ids = [clip_id(folder / f"{number}.wav", folder) for number in (1, 2)]
    rows = [{"id": id, **fields} for id in ids]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="0.wav: lasts 1.0 s, and what is annotated"):
        run(folder, out, f"--annotations={path}")
    assert f"{path} lacks 1 of 3 songs, which are measured" in capsys.readouterr().err
    found = rows_of(out)
    assert [row["bpm"]["value"] for row in found] == [90.0, 90.0]
    assert found[0]["key"]["name"] == "madmom"
    assert [row["caption"]["check"]["outcome"] for row in found] == ["kept", "kept"]


def test_one_song_is_no_library(folder, tmp_path):
    with pytest.raises(UsageError, match="0.wav is one song: describe it with"):
        run(folder / "0.wav", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format=jsonl,xml"], "there is no xml; choose among jsonl, csv, parquet"),
        (["--format=jsonl,"], "there is no empty format"),
        (["--beside"], "--beside is for sidecars: add --format=sidecar"),
        (["--run=a", "--model=b"], "--run and --model both name what answers"),
        (["--temperature=0"], "must be above 0, or each other caption would be the"),
        (["--temperature=nan"], "must be above 0"),
        (["--tries=-1"], "-1 is not a whole number from 0 on"),
        (["--actors=3"], "--actors is for --engine=ray"),
        (["--task=2", "--tasks=2"], "--task must be from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        run(folder, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_the_command_knows_a_song_from_a_library():
    assert command.program_of(["caption", "songs/", "--out=o"]) == "caption"
    assert command.program_of(["caption", "--out", "o", "songs/"]) == "caption"
    assert command.program_of(["caption", "a.ogg", "--json"]) is None
    assert command.program_of(["train", "--config=tiny"]) == "train"
    assert command.program_of(["ask", "a.ogg"]) is None
    assert command.program_of([]) is None


def test_a_library_without_a_place_for_its_captions_is_refused(folder):
    given = command.parser().parse_args(["caption", str(folder)])
    with pytest.raises(UsageError, match="is a folder: say where its captions go with"):
        command.carry_out(given)


@pytest.mark.slow
def test_the_embedded_model_captions_its_own_clips(tmp_path):
    tags = tmp_path / "tags.txt"
    tags.write_text("genre: rock, jazz, waltz, march, ballad, techno, reggae\n")
    words = [CLIPS, f"--tags={tags}", "--limit=3", "--format=jsonl,webdataset"]
    done = programs.run("caption", *words, "--out=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for task in (1, 0):
        shared = (f"--task={task}", "--tasks=2", "--out=two")
        done = programs.run("caption", *words, *shared, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "one") == files(tmp_path / "two")
    rows = rows_of(tmp_path / "one")
    styles = {
        line["audio"]: line["value"]
        for line in map(json.loads, (CLIPS.parent / "songs.jsonl").open())
        if line.get("attribute") == "style"
    }
    found = [row["genre"]["value"] for row in rows]
    assert found == [styles[f"clips/{row['audio']}"] for row in rows]
    assert all(0 < row["genre"]["confidence"] < 1 for row in rows)
    assert all(row["key"]["value"] and row["bpm"]["value"] for row in rows)
