"""The campaign tells every outcome apart, can be repeated, and runs in small."""

import random
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.joined_sound import page_with, pages
from helpers.programs import Done

from campaign import (
    attempt,
    byte_mutations,
    file_mutations,
    hostile_pickles,
    inputs,
    json_mutations,
    kills,
    launch,
    machine,
    neighbours,
    outcomes,
    record,
    report,
    results,
    workspace,
)
from campaign.attempt import Attempt
from campaign.subjects import SUBJECTS

pytestmark = pytest.mark.medium
NAMES = outcomes.names_of(Path("folder/file.json"))
NOTICE = "import sys; print('folder/file.json: is new', file=sys.stderr)"
ENDS = "import sys; sys.exit('error: {}')"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "workspace"
    workspace.make(folder, trained=False)
    return folder


def outcome(folder, code, *, same=True, guarded=True, prelude="", **limits):
    """The outcome of a program with this text."""
    (folder / "program.py").write_text(code)
    made = Attempt(folder, [(str(folder / "program.py"),)], Path("x"), prelude)
    done = attempt.run(made, **limits)
    harmless = "harmless" in code
    return outcomes.classify(
        done,
        same=same,
        guarded=guarded,
        names=NAMES,
        place=folder,
        usual="always\n",
        harmless=harmless,
    )


@pytest.mark.parametrize(
    ("expected", "code", "options"),
    [
        ("same", "print(1)", {}),
        ("different", "print(1)", {"same": False}),
        ("different", "print('folder/file.json')", {"same": False}),
        ("changed", "print(1)", {"same": False, "guarded": False}),
        ("told", NOTICE, {"same": False}),
        ("told", NOTICE, {"same": False, "guarded": False}),
        ("refused", ENDS.format("file.json: is damaged"), {}),
        ("refused", ENDS.format("folder: holds no model"), {}),
        ("unclear", ENDS.format("something is damaged"), {}),
        ("unclear", "import sys; sys.exit('file.json')", {}),
        ("unclear", "import sys; sys.exit(3)", {}),
        ("false", "# harmless\n" + ENDS.format("file.json"), {"guarded": False}),
        ("traceback", "1 / 0", {}),
        (
            "traceback",
            "import traceback\ntry: 1 / 0\nexcept: traceback.print_exc()",
            {},
        ),
        ("hang", "while True: pass", {"cpu": 1}),
        ("hang", "import time; time.sleep(1000)", {"idle": 0.2}),
        ("hang", "import os; os.mkfifo('p'); open('p')", {"idle": 0.2}),
        ("memory", "x = bytes(2**32)", {"memory": 2**30}),
        ("crash", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {}),
        ("escape", "print('\\x1b[31mred')", {}),
        ("escape", "import os; os.write(1, b'\\xff')", {}),
        ("executed", "open('canary', 'w')", {}),
    ],
)
def test_each_outcome_is_told_from_the_others(tmp_path, expected, code, options):
    assert outcome(tmp_path, code, **options) == expected


def test_what_is_usual_is_no_notice():
    usual = "file.json: has 3 lines\n"
    assert not outcomes.has_notice(usual + "scoring: 3%| file.json", usual, NAMES)
    assert outcomes.has_notice(usual + "file.json: has 2 lines\n", usual, NAMES)


def test_a_signal_comes_at_a_change_of_a_file_or_at_a_moment(tmp_path):
    code = "for n in range(9): open(f'{n}', 'w').close(); open(f'{n}').close()"
    (tmp_path / "program.py").write_text(code)
    at_change = attempt.inside.kill_at_change(4, signal.SIGKILL)
    made = Attempt(tmp_path, [(str(tmp_path / "program.py"),)], Path(), at_change)
    assert attempt.run(made).returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "program.py"]
    (tmp_path / "program.py").write_text("while True: pass")
    made.prelude = attempt.inside.kill_at_cpu(0.2, signal.SIGTERM)
    assert attempt.run(made, cpu=30).returncode == -signal.SIGTERM


def test_json_is_written_as_it_was_read():
    text = '{"a": [1, {"b": null, "b": 2.5}], "c": "\\u00e9\\u0000"}'
    assert json_mutations.write(json_mutations.parse(text)) == text


MUTATORS = {
    "config.py": [byte_mutations.damage_bytes, byte_mutations.recode],
    "run/config.json": [json_mutations.damage_json, file_mutations.replace_file],
    "predictions.jsonl": [json_mutations.damage_line, file_mutations.rename],
    "encoder/model.safetensors": [json_mutations.damage_header],
    "adapter.pth": [*hostile_pickles.MUTATORS, byte_mutations.flip_bit],
}


@pytest.mark.parametrize("target", MUTATORS)
def test_damage_follows_from_the_seed_and_stays_in_its_place(small, tmp_path, target):
    template = tmp_path / "template"
    path = template / target
    path.parent.mkdir(parents=True)
    path.write_bytes((small / target).read_bytes())
    (template / "other").touch()
    for mutator in MUTATORS[target]:
        hows = set()
        for seed in range(10):
            how, content = damaged(mutator, seed, template, target)
            hows.add(how)
            if how != "zeros":  # That is /dev/zero.
                assert (how, content) == damaged(mutator, seed, template, target)
        assert len(hows) > 2, mutator


def damaged(mutator, seed, template, target):
    """How a mutator has damaged a file, and what it is now."""
    with attempt.place_of(template) as place:
        made = Attempt(place, [("chat", target)], Path(target))
        how = mutator(random.Random(seed), made)
        assert (place / "other").exists()
        assert all(word for command in made.commands for word in command)
        path = made.path
        whole = path.is_file() and how not in ("zeros", "unreadable")
        return how, path.read_bytes() if whole else path.is_dir()


def test_what_is_unreadable_is_so_for_root(tmp_path):
    (tmp_path / "x").touch()
    (tmp_path / "x").chmod(0)
    code = "open('x')"
    permissions = attempt.inside.obey_permissions()
    assert outcome(tmp_path, code, prelude=permissions) == "traceback"


def test_a_bomb_is_a_whole_zip(tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(hostile_pickles.bomb("archive"))
    assert path.stat().st_size < 2**23
    with zipfile.ZipFile(path) as file:
        (entry,) = file.infolist()
        assert (entry.filename, entry.file_size) == ("archive/data.pkl", 3 * 2**30)
        with file.open(entry) as pickle:
            assert pickle.read(2**20) == bytes(2**20)


def test_a_record_is_continued_after_a_line_that_was_cut(tmp_path):
    path = tmp_path / "part.jsonl"
    rows = [
        {"id": str(n), "outcome": "same", "part": "p", "kind": "k"} for n in range(3)
    ]
    for row in rows[:2]:
        record.Record(path).add(row)
    path.write_text(path.read_text() + '{"id": "9", "outc')
    again = record.Record(path)
    assert list(again.rows) == ["0", "1"]
    again.add(rows[2] | {"outcome": "hang", "how": "pipe", "said": "x"})
    assert list(record.Record(path).rows) == ["0", "1", "2"]
    again.forget_faults()
    assert list(again.rows) == ["0", "1"]
    text = report.report(record.read_all(tmp_path))
    assert "1 faults in 3 attempts" in text and "--only='2'" in text
    assert text.splitlines()[1].split() == ["p:", "k", "3", "2", "1"]


def test_every_subject_names_a_reader_and_all_kinds_are_planned():
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
    plan = inputs.planned(1.0)
    assert len(plan) >= 5000 and len(set(plan)) == len(plan)
    bits = [n for subject, n in plan if subject.name == "bits of a checkpoint"]
    assert len(bits) == 60
    chains = kills.planned(1.0)
    assert kills.KILLS * len(chains) >= 300
    assert {journey for journey, _ in chains} == {*kills.JOURNEYS}


# Kinds whose programs take no time to start.
QUICK = (
    "safetensors header",
    "safetensors data",
    "songs.jsonl",
    "published/musiccaps",
    "published/music_qa",
    "predictions",
    "PyTorch file",
    "config of a run",
    "song flac",
    "flags",
)


@pytest.mark.quick(
    "song flac",
    "songs.jsonl",
    "published/musiccaps",
    "safetensors data",
    "flags",
    "safetensors header",
    "predictions",
)
@pytest.mark.parametrize("name", QUICK)
def test_a_few_damaged_inputs(small, name, tmp_path):
    (subject,) = (subject for subject in SUBJECTS if subject.name == name)
    row = inputs.try_one(subject, 0, seed=0, workspace=small, out=tmp_path)
    assert row["outcome"] in outcomes.GOOD, row


def journey(name):
    return next(journey for journey in kills.JOURNEYS if journey.name == name)


def test_a_few_kills(small):
    row = kills.try_one(journey("convert export"), 0, seed=0, workspace=small)
    assert row["outcome"] == "same" and row["kills"], row


@pytest.mark.quick("read-only", "full disk", "little memory")
@pytest.mark.parametrize("fault", machine.FAULTS)
def test_a_few_faults_of_the_machine(small, fault):
    tried = journey("convert export")
    row = machine.try_one(fault, tried, 0, seed=0, workspace=small)
    assert row["outcome"] in outcomes.GOOD, row


@pytest.mark.slow
def test_a_few_neighbours(small):
    row = neighbours.try_one(0, seed=0, workspace=small)
    assert row["outcome"] == "same", row


@pytest.mark.parametrize("number", range(2))
def test_a_few_words_of_launch_scripts(number):
    row = launch.try_one(number, seed=0)
    assert row["outcome"] in outcomes.GOOD, row


def test_a_sound_is_the_same_whatever_number_its_stream_has(tmp_path):
    path, same = tmp_path / "a.ogg", results.files("*.ogg")

    def renumber(header):
        header[14:18] = b"abcd"

    wave = np.sin(np.arange(24_000) / 9)
    soundfile.write(path, wave, 24_000, format="OGG")
    expected, done = same(tmp_path, Done(0, "", "")), Done(0, "", "")
    written = path.read_bytes()
    soundfile.write(path, wave / 2, 24_000, format="OGG")
    assert not results.equal(same, tmp_path, done, expected)
    path.write_bytes(b"".join(page_with(page, renumber) for page in pages(written)))
    assert path.read_bytes() != written
    assert results.equal(same, tmp_path, done, expected)
    path.write_bytes(b"no sound")
    assert not results.equal(same, tmp_path, done, expected)
