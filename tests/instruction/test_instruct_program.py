"""`musilingo instruct`: shared, killed, resumed, paid once; and read by our readers."""

import io
import json
import pickle

import numpy as np
import pytest
import soundfile
from helpers.chat_endpoint import pairs, serving
from helpers.letter_job import files

from musilingo_jax import instruct
from musilingo_jax.corpora import findings, songs
from musilingo_jax.instruction import (
    endpoint,
    ledger,
    makers,
    sources,
    templates,
    wordings,
)
from musilingo_jax.instruction.pairs import Item
from musilingo_jax.instruction.subjects import Subject, Vocabulary
from musilingo_jax.runtime.errors import UsageError, UserError

STYLES = ("jazz", "rock", "waltz")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six songs, of which all facts are known."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(6):
        name = f"{number}.wav"
        wave = np.sin(np.arange(4000) / (9 + number)).astype(np.float32)
        soundfile.write(folder / name, wave, 4000)
        split = "test" if number == 5 else "train"
        facts = {
            "key": ("A minor", "C major")[number % 2],
            "tempo": str(80 + 10 * number),
            "style": STYLES[number % 3],
            "drums": ("drums", "no drums")[number % 2],
        }
        rows.append({"audio": name, "answer": f"Song {number}.", "split": split})
        rows += [
            {"audio": name, "question": f"{key}?", "answer": f"It is {value}."}
            | {"attribute": key, "value": value, "split": split}
            for key, value in facts.items()
        ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "songs.jsonl").write_text(text)
    return folder


def make(corpus, out, *words):
    given = instruct.parser().parse_args(
        [str(corpus), f"--out={out}", "--exclusive=style", *words]
    )
    instruct.main(given)


def rows_of(out):
    shards = sorted(out.glob("0*.jsonl"))
    texts = [line for path in shards for line in path.read_text().splitlines()[1:]]
    return [json.loads(text) for text in texts]


def test_what_is_made_can_be_trained_on(corpus, tmp_path, capsys):
    out = tmp_path / "deep/out"
    make(corpus, out)
    path = out / "songs.jsonl"
    records = songs.load(path)
    assert {record.audio.resolve() for record in records} == {
        (corpus / f"{number}.wav").resolve() for number in range(6)
    }
    assert {record.split for record in records} == {"train", "test"}
    assert {"key", "tempo", "style", "drums"} <= {r.attribute for r in records}
    places = [(str(n), record) for n, record in enumerate(records)]
    assert not [f for f in findings.find(places) if f.kind in findings.MISTAKES]
    printed = capsys.readouterr().out
    assert f"{path}: {len(records)} pairs" in printed
    assert f"pairs      {len(records)} of 6 clips" in printed
    assert "refused    0 of" in printed
    assert "20 of them, drawn with the seed 0:" in printed
    assert printed.count("  Q: ") == printed.count("  A: ") == 20
    report = (out / "report.md").read_text()
    assert report.count("  Q: ") == 20 and "](report.png)" in report
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    row = rows_of(out)[0]
    assert (row["maker"], row["prompt"], row["seed"]) == (
        "templates",
        wordings.VERSION,
        0,
    )
    assert (row["raw"], row["parse"], row["refused"]) == (None, "by rules", [])


def test_the_published_forms_are_read_as_they_are(corpus, tmp_path):
    from musilingo_jax.corpora.music_instruct import MusicInstruct
    from musilingo_jax.corpora.music_qa import MusicQA

    make(corpus, tmp_path, "--formats=songs,music_qa,music_instruct")
    records = songs.load(tmp_path / "songs.jsonl")
    told = {(r.audio.name, r.question, r.answer, r.split) for r in records}

    def read(kind, name, **options):
        made = kind(
            source=tmp_path / name, audio=corpus, data_dir=tmp_path / "x", **options
        )
        assert not made.survey.left_out
        return {
            (r.audio.name, r.question, r.answer, r.split)
            for r, *_ in made.survey.records
        }

    assert read(MusicQA, "music_qa") == told
    assert read(MusicInstruct, "music_instruct", config="all") == told
    short = read(MusicInstruct, "music_instruct", config="short")
    long = read(MusicInstruct, "music_instruct", config="long")
    assert short | long == told and not short & long
    facts = {
        (r.audio.name, r.question, r.answer, r.split) for r in records if r.attribute
    }
    assert facts <= short


def test_what_a_form_has_no_place_for_is_counted(corpus, tmp_path, capsys):
    lines = [
        {"audio": "0.wav", "answer": "One.", "split": "validation"},
        {"audio": "1.wav", "answer": "Two.", "end": 0.5},
        {"audio": "2.wav", "answer": "Three."},
    ]
    path = corpus / "parts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [str(path), f"--out={tmp_path}", "--formats=music_qa,music_instruct"]
    instruct.main(instruct.parser().parse_args(words))
    printed = capsys.readouterr().out
    assert "FinetuneMusicQA.json: 1 pairs" in printed
    assert "1 more are left out: of a stretch of a file, which MusicQA" in printed
    assert "1 more are left out: of the split validation, which MusicQA" in printed
    assert "music_instruct.json: 2 pairs" in printed
    assert "1 more are left out: of the split validation, which MusicInst" in printed
    assert not (tmp_path / "songs.jsonl").exists()


def test_tasks_and_kills_make_the_same_bytes(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(instruct, "_SHARD", 4)
    make(corpus, tmp_path / "whole")
    for task in (2, 0, 1):
        make(corpus, tmp_path / "tasks", f"--task={task}", "--tasks=3")
    original, made = templates.Templates.pairs, []

    def die_at_the_tenth(self, item):
        made.append(item)
        if len(made) == 10:
            raise KeyboardInterrupt
        return original(self, item)

    monkeypatch.setattr(templates.Templates, "pairs", die_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        make(corpus, tmp_path / "killed")
    make(corpus, tmp_path / "killed")
    assert len(made) == 9 + 1 + 18 - 8  # Two shards of four were whole.
    assert (
        files(tmp_path / "whole")
        == files(tmp_path / "tasks")
        == files(tmp_path / "killed")
    )


def test_a_songs_file_of_somebody_else_is_not_replaced(corpus):
    before = (corpus / "songs.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds a songs.jsonl that is not of this pr"):
        make(corpus, corpus)
    assert (corpus / "songs.jsonl").read_bytes() == before
    assert not (corpus / "plans").exists()


def test_other_settings_are_another_job(corpus, tmp_path):
    make(corpus, tmp_path)
    with pytest.raises(UserError, match="these pairs were made with seed 0, not 1"):
        make(corpus, tmp_path, "--seed=1")
    with pytest.raises(UserError, match="these pairs were made with vocabulary "):
        given = instruct.parser().parse_args([str(corpus), f"--out={tmp_path}"])
        instruct.main(given)


def test_fewer_clips_and_families_are_a_part_of_the_same_job(corpus, tmp_path, capsys):
    make(corpus, tmp_path, "--families=reasoning", "--limit=2")
    assert "--limit: 2 of 6 clips" in capsys.readouterr().err
    first = rows_of(tmp_path)
    assert {row["family"] for row in first} == {"reasoning"} and len(first) == 2
    make(corpus, tmp_path)
    assert len(rows_of(tmp_path)) == 18
    make(corpus, tmp_path, "--limit=2")
    assert "12 rows of what is not asked for stay" in capsys.readouterr().err
    assert len({r.audio for r in songs.load(tmp_path / "songs.jsonl")}) == 2


def reply(body, before):
    """Good pairs, bad pairs, and lies, for each clip."""
    text = body["messages"][0]["content"]
    key = "A minor" if '"A minor"' in text else "C major"
    other = "G major"
    return pairs(
        "In which key is it?",
        f"It is in {key}.",
        "What is the key here?",
        f"It is in {other}.",
        "Who sings this?",
        "A famous artist.",
        "How loud is it?",
        "The caption does not mention it.",
        "in which key is it",
        f"In {key}.",
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.01)


def by_endpoint(corpus, out, server, *words):
    address = f"--url={server.url}"
    asked = ("--by=endpoint", address, "--model-name=stand-in", "--yes")
    make(corpus, out, *asked, *words)


def test_an_endpoint_is_asked_sifted_and_reported(corpus, tmp_path, capsys, quick):
    prices = "--price-in=1", "--price-out=2"
    with serving(reply) as server:
        by_endpoint(corpus, tmp_path, server, "--families=understanding", *prices)
        assert len(server.seen) == 6
    done = capsys.readouterr()
    assert "6 requests to stand-in at" in done.err and "by these prices" in done.err
    for line in (
        "pairs      6 of 6 clips, 1.0 each (1 to 1)",
        "read       json 6",
        "refused    24 of 30, 80.0 %",
        "  contradicts what is known 6, 20.0 %",
        "  unanswerable              6, 20.0 %",
        "  about the record          6, 20.0 %",
        "  duplicate                 6, 20.0 %",
        "counted    600 tokens read, 60 written: 0.00 by these prices",
    ):
        assert line in done.out, done.out
    row = rows_of(tmp_path)[0]
    assert json.loads(row["raw"]) and row["maker"] == "stand-in"
    assert [pair["answer"] for pair in row["pairs"]] == ["It is in A minor."]
    contradicting = row["refused"][0]
    assert contradicting["detail"] == "key: A minor"
    records = songs.load(tmp_path / "songs.jsonl")
    assert len(records) == 6 and records[0].attribute is None


def test_what_an_endpoint_answered_is_not_paid_twice(
    corpus, tmp_path, monkeypatch, quick
):
    """The program is killed within its only shard, and started again."""
    original, added = ledger.Ledger.add, []

    def die_at_the_fifth(self, key, said):
        original(self, key, said)
        added.append(key)
        if len(added) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(ledger.Ledger, "add", die_at_the_fifth)
    with serving(reply) as server:
        with pytest.raises(KeyboardInterrupt):
            by_endpoint(corpus, tmp_path, server, "--in-flight=1")
        assert not list(tmp_path.glob("0*.jsonl"))
        by_endpoint(corpus, tmp_path, server, "--in-flight=1")
        bodies = [json.dumps(body, sort_keys=True) for body in server.seen]
        assert len(bodies) == len(set(bodies)) == 18
        # Another folder with the same replies; nobody is asked, or asked to agree.
        copy = tmp_path / "copy"
        copy.mkdir()
        (tmp_path / ledger.FOLDER).rename(copy / ledger.FOLDER)
        address = f"--url={server.url}"
        make(corpus, copy, "--by=endpoint", address, "--model-name=stand-in")
        assert len(server.seen) == 18
        assert rows_of(copy) == rows_of(tmp_path)


def test_items_without_a_reply_are_listed_and_retried(corpus, tmp_path, capsys, quick):
    is_up = []

    def script(body, before):
        is_first = "Song 0." in body["messages"][0]["content"]
        return reply(body, before) if is_up or not is_first else 500

    words = ("--families=reasoning", "--attempts=2")
    with serving(script) as server:
        with pytest.raises(UserError) as told:
            by_endpoint(corpus, tmp_path, server, *words)
        assert "1 of 6 have no reply; all others are done" in str(told.value)
        assert "0.wav" in str(told.value) and "HTTP 500" in str(told.value)
        assert len(songs.load(tmp_path / "songs.jsonl")) == 5
        by_endpoint(corpus, tmp_path, server, *words, "--allow-missing")
        assert "1 of 6 have no reply:\n" in capsys.readouterr().out
        is_up.append(True)
        by_endpoint(corpus, tmp_path, server, *words, "--retry")
        assert len(songs.load(tmp_path / "songs.jsonl")) == 6
        assert len(server.seen) == 5 + 2 + 1


def test_the_cost_has_to_be_agreed_to(corpus, tmp_path, monkeypatch, capsys):
    with serving(reply) as server:
        address = f"--url={server.url}"
        words = ("--by=endpoint", address, "--model-name=x", "--limit=1")
        monkeypatch.setattr(instruct.sys, "stdin", io.StringIO("y"))
        with pytest.raises(UsageError, match="agree to this without being asked, give"):
            make(corpus, tmp_path, *words)
        for answer in ("", "n\n", "maybe\n"):
            terminal = io.StringIO(answer)
            terminal.isatty = lambda: True
            monkeypatch.setattr(instruct.sys, "stdin", terminal)
            with pytest.raises(UserError, match="nothing was asked for"):
                make(corpus, tmp_path, *words)
        assert not server.seen and not (tmp_path / "plans").exists()
        assert capsys.readouterr().err.count("3 requests to x at") == 4
        terminal = io.StringIO("Yes\n")
        terminal.isatty = lambda: True
        monkeypatch.setattr(instruct.sys, "stdin", terminal)
        make(corpus, tmp_path, *words)
        assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--families=mir"],
            "--families=mir: there is no mir; choose among understand",
        ),
        (["--formats=songs,"], "there is no one without a name"),
        (
            ["--exclusive=mood"],
            "no clip has the attribute 'mood'; there are drums, key",
        ),
        (["--by=decoder"], "--by=decoder needs --language-model"),
        (["--by=endpoint", "--url=http://x"], "--by=endpoint needs --model-name"),
        (["--url=http://x"], "--url is for --by=endpoint"),
        (["--temperature=0"], "--temperature is for --by=decoder or --by=endpoint"),
        (["--yes"], "--yes is for --by=endpoint"),
        (["--out=gs://bucket/x"], "name a folder that this machine can open"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(corpus, tmp_path, words, message):
    given = instruct.parser().parse_args(
        [str(corpus), f"--out={tmp_path / 'out'}", *words]
    )
    with pytest.raises(UserError, match=message):
        instruct.main(given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url=localhost:8000"], "--url=localhost:8000: is no address"),
        (["--url=ftp://x/v1"], "is no address"),
        (["--url=http://me:secret@x/v1"], "leave out what is before an @"),
        (["--url=http://x/v1", "--timeout=0"], "--timeout=0: must be more than 0"),
        (["--url=http://x/v1", "--timeout=nan"], "must be more than 0 seconds"),
        (["--url=http://x/v1", "--price-in=-1"], "--price-in=-1: must be 0 or more"),
        (["--url=http://x/v1", "--temperature=nan"], "must be 0 or more"),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_refused(corpus, tmp_path, words, message):
    given = ["--by=endpoint", "--model-name=x", *words]
    with pytest.raises(UsageError, match=message):
        make(corpus, tmp_path, *given)


def test_a_key_without_encryption_is_noted(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    asked = ("--by=endpoint", "--model-name=x", "--yes", "--key-env=NO_KEY")
    with pytest.raises(UserError, match="--key-env=NO_KEY: the environment holds no"):
        make(corpus, tmp_path, *asked, "--url=http://far.example/v1")
    assert "sent to far.example without encryption" in capsys.readouterr().err


def test_a_source_without_sound_needs_it_for_a_songs_file(tmp_path):
    path = tmp_path / "annotations.jsonl"
    value = {"value": "A minor", "source": "here"}
    path.write_text(json.dumps({"id": "a", "audio": "a.wav", "key": value}) + "\n")
    given = instruct.parser().parse_args([str(path), f"--out={tmp_path / 'out'}"])
    with pytest.raises(UsageError, match="give the folder with --audio, or --formats="):
        instruct.main(given)
    assert sources.read(str(path), None).subjects[0].facts["mode"] == "minor"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--by=endpoint", "--url=http://x/v1", "--model-name=x"],
        ["--by=decoder", "--language-model=musilingo-tiny", "--dtype=float32"]
        + ["--template={}", "--end-sign=#"],
    ],
)
def test_what_makes_rows_can_be_sent_to_another_process(tmp_path, words):
    given = instruct.parser().parse_args(["x", f"--out={tmp_path}", *words])
    makers.check(given)
    vocabulary = Vocabulary.of([], ("key",), complete=False)
    chosen = makers.choose(given, vocabulary, tmp_path)
    copy = pickle.loads(pickle.dumps(chosen.load))
    assert copy.func is chosen.load.func and copy.args == chosen.load.args
    item = Item(Subject("a", "a", None, "train", facts={"key": "A minor"}), "reasoning")
    assert pickle.loads(pickle.dumps(item)) == item


def test_a_cluster_needs_a_type(tmp_path):
    words = ["--by=decoder", "--language-model=x", "--engine=ray"]
    given = instruct.parser().parse_args(["x", f"--out={tmp_path}", *words])
    with pytest.raises(UsageError, match="--engine=ray: this process does not know"):
        makers.check(given)
