"""Jobs that make a row of each item: shared, killed, damaged, told."""

import json
import random

import pytest
from etils import epath
from helpers.letter_job import ALL, WORDS, files, place, run

from musilingo_jax.jobs import journal, row_shards, shard_plan
from musilingo_jax.jobs.share import Share, claim
from musilingo_jax.runtime.errors import UserError


def rows(folder, state):
    return list(row_shards.rows(epath.Path(folder), state))


@pytest.mark.parametrize("tasks", [2, 5])
def test_any_number_of_tasks_makes_the_same_files(tmp_path, tasks):
    state = run(tmp_path / "one", bad=["xx2"])
    assert rows(tmp_path / "one", state) == [
        {"id": word, "n": len(word)} for word in WORDS if word != "xx2"
    ]
    assert state.failed == {"xx2": "xx2: is no word"} and not state.unfinished
    for task in random.Random(tasks).sample(range(tasks), tasks):
        state = run(tmp_path / "many", share=Share(task, tasks), bad=["xx2"])
    assert not state.unfinished
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_killed_at_any_item_it_continues_to_the_same_files(tmp_path):
    run(tmp_path / "whole")
    for n, word in enumerate(WORDS):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", stop_at=word)
        made = sorted((tmp_path / "killed").glob("0*.jsonl"))
        assert len(made) == n // 3
    run(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_what_is_finished_is_not_made_again(tmp_path):
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    run(tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}


def test_items_that_failed_are_tried_again_if_asked(tmp_path):
    run(tmp_path, bad=["x1"])
    assert set(run(tmp_path).failed) == {"x1"}
    state = run(tmp_path, retry=True)
    assert not state.failed and {row["id"] for row in rows(tmp_path, state)} == {*WORDS}


def test_added_items_get_shards_of_their_own_and_removed_ones_are_absent(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, WORDS[:6], stop_at=WORDS[3])
    before = files(tmp_path)
    state = run(tmp_path, [*WORDS[:4], *WORDS[6:]])
    assert before.items() <= files(tmp_path).items()
    found = {row["id"] for row in rows(tmp_path, state)}
    assert found == {*WORDS} - {*WORDS[4:6]}
    state = run(tmp_path)  # They are back.
    assert {row["id"] for row in rows(tmp_path, state)} == {*WORDS}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],
        lambda text: "",
        lambda text: text.replace('"n": 2', '"n": 3'),
        lambda text: text.replace('"x1"', '"x2"'),
        lambda text: "[1]\n" + text,
        lambda text: text.split("\n")[0],
    ],
)
def test_a_damaged_shard_is_made_again(tmp_path, damage):
    state = run(tmp_path)
    before = files(tmp_path)
    path = tmp_path / "00000000.jsonl"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"00000000\.jsonl: is damaged; delete it"):
        rows(tmp_path, state)
    run(tmp_path)
    assert files(tmp_path) == before


def test_damaged_plans_are_repaired_by_one_task(tmp_path):
    run(tmp_path)
    before = files(tmp_path)
    (tmp_path / "plans/000.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON.*run this once without --tasks"):
        run(tmp_path, share=Share(0, 2))
    run(tmp_path)
    assert files(tmp_path) == before
    (tmp_path / "plans/000.json").unlink()
    run(tmp_path)
    assert files(tmp_path) == before


def test_rows_of_another_identity_are_refused(tmp_path):
    run(tmp_path)
    message = "these counts were made with version 1, not 2. Choose another .*--out=…"
    with pytest.raises(UserError, match=message):
        run(tmp_path, identity={"version": 2})


def test_two_programs_do_not_work_in_one_folder(tmp_path):
    with (
        claim(place(tmp_path).folder, ALL, busy="counting letters here"),
        pytest.raises(UserError, match="another program is counting letters here; w"),
    ):
        run(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x: .* or choose another .* with --out="):
        run(tmp_path / "file/x")


def test_the_journal_says_what_happened(tmp_path, capsys):
    run(tmp_path, bad=["x1"])
    (path,) = (tmp_path / journal.FOLDER).iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["began", *["made"] * 6, "ended"]
    assert lines[0]["task"] == "0 of 1" and lines[0]["engine"] == "local"
    assert lines[1]["items"] == 3 and lines[1]["seconds_of_sound"] == 4.5
    assert lines[-1]["made"] == 6
    shown = capsys.readouterr().err
    assert "counting" in shown and "17/17" in shown and "× real time" in shown


def test_a_plan_of_another_program_counts_first(tmp_path):
    folder = epath.Path(tmp_path)
    none = shard_plan.read(folder)
    shard_plan.add(folder, {"version": 1}, none, ["x1", "xx2"], shard_items=1)
    state = run(tmp_path)
    assert state.plans.shards[:3] == (("x1",), ("xx2",), ("0", "xxx3", "xxxx4"))
