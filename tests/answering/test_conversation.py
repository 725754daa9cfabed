"""Conversations: what is remembered, which song is meant, what is left out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny_model as tiny

from musilingo_jax.answering import comparison
from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.model import Model
from musilingo_jax.answering.saved_conversation import Turn
from musilingo_jax.answering.song_names import labels, named
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

FAST, LOUD = "How fast is it?", "How loud is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder, tiny.llama())
    time = np.arange(1300) / tiny.RATE
    for name, pitch in {"a": 40, "b": 90}.items():
        tone = 0.5 * np.sin(2 * np.pi * pitch * time)
        soundfile.write(folder / f"{name}.wav", tone, tiny.RATE)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return Model.load(folder)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def talk(model, folder, told) -> Conversation:
    talk = Conversation(model, tell=told.append)
    talk.add(folder / "a.wav")
    return talk


def test_a_model_that_learnt_from_single_questions_is_asked_such(talk, model, told):
    first, second = talk.ask(FAST), talk.ask(LOUD)
    mark = model.decoding().cut_mark
    assert [first, second] == [t + mark for t in model.ask(talk.current, [FAST, LOUD])]
    assert len(told) == 1 and "with no earlier turns" in told[0]
    talk.ask(FAST)
    assert len(told) == 1


def test_earlier_turns_stand_in_the_prompt(talk, model, told):
    talk.set("turns", 5)
    talk.ask(FAST)
    second = talk.ask(LOUD)
    said = talk.turns[0].answer
    alone = model.ask(talk.current, LOUD)
    after = model.submit(talk.current, LOUD, earlier=[(FAST, said)]).answer().text
    assert second.startswith(after) and after != alone
    assert talk.turns[1] == Turn(0, LOUD, after)
    talk.reset()
    assert talk.ask(LOUD).startswith(alone)
    assert not told


def test_the_oldest_turns_are_left_out_when_they_do_not_fit(talk, model, told):
    talk.set("turns", 99)
    talk.turns = [Turn(0, f"{FAST} {n}", "It is fast. " * 30) for n in range(9)]
    text = talk.ask(LOUD)
    (sentence,) = told
    assert sentence.startswith("the oldest ") and "of 9 turns are left out" in sentence
    left = 9 - int(sentence.split()[2])
    kept = [(turn.question, turn.answer) for turn in talk.turns[:9]]
    room = model.context - model.usage.generate.max_new_tokens
    assert model.prompt_length(talk.current, LOUD, kept[9 - left :]) <= room
    assert model.prompt_length(talk.current, LOUD, kept[8 - left :]) > room
    pending = model.submit(talk.current, LOUD, earlier=kept[9 - left :])
    assert text.startswith(pending.answer().text)


def test_songs_are_named_in_the_question(talk, model, folder, told):
    talk.add(folder / "b.wav")
    assert talk.names == ["a.wav", "b.wav"]
    a, b = talk.songs
    mark, question = model.decoding().cut_mark, "How fast is this song?"
    slow, fast = (model.ask(song, question) + mark for song in (a, b))
    assert talk.ask("How fast is the first song?") == slow
    assert talk.current is a  # Until another one is named.
    assert talk.ask("How fast is b.wav?") == fast
    assert talk.ask("How fast is both?") == f"a.wav: {slow}\nb.wav: {fast}"
    assert any("each is asked on its own" in sentence for sentence in told)
    assert [turn.song for turn in talk.turns] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("question", "numbers", "asked"),
    [
        ("How fast is it?", [], "How fast is it?"),
        ("Is the SECOND one faster?", [1], "Is this song faster?"),
        ("Describe the first and the third.", [0, 2], "Describe this song."),
        ("Do both have drums?", [0, 1, 2], "Does this song have drums?"),
        ("What plays in the first half?", [], "What plays in the first half?"),
        ("Which instrument comes first?", [], "Which instrument comes first?"),
        ("And the last track?", [2], "And this song?"),
        ("Describe song 2.", [1], "Describe this song."),
        ("What of my song?", [2], "What of this song?"),
        ("What of my song.ogg", [2], "What of this song"),
        ("all songs, please", [0, 1, 2], "this song, please"),
        ("Is it abacus music?", [], "Is it abacus music?"),
    ],
)
def test_which_songs_are_named(question, numbers, asked):
    names = ["x/a.ogg", "bab.ogg", "my song.ogg"]
    assert named(question, names) == (numbers, asked)


@pytest.mark.parametrize(
    ("question", "numbers", "asked"),
    [
        ("Which one is faster?", [0, 1], "What is the tempo?"),
        ("Is the first one faster than b.ogg?", [0, 1], "What is the tempo?"),
        ("Is the second one slower?", [0, 1], "What is the tempo?"),
        ("Are they in the same key?", [0, 1], "Which key is it in?"),
        ("Compare them.", [0, 1], "Describe this music in detail."),
        # Not of songs with each other:
        ("Is the second one faster than 120 BPM?", [1], None),
        ("Does the first get faster?", [1], None),
        ("Tell me more about the second song.", [1], None),
        ("Which is louder, the piano or the violin?", [1], None),
        ("Is it the same all the time?", [1], None),
        ("What is the most prominent instrument in both songs?", [0, 1], None),
    ],
)
def test_which_questions_compare_songs(question, numbers, asked):
    found = comparison.asked(question, ["a.ogg", "b.ogg"], current=1)
    assert list(found.songs) == numbers
    assert (found.question if found.aspect else None) == asked
    assert ("cannot compare" in found.notice) == (asked is not None)


@pytest.mark.parametrize(
    ("question", "answers", "conclusion"),
    [
        ("Which is faster?", ["It is slow.", "fast"], "b.ogg is faster."),
        ("Which is slower?", ["It is at 120 BPM", "90 bpm"], "a.ogg is faster."),
        (
            "Which is faster?",
            ["It is slow.", "A slow one."],
            "their tempo is the same.",
        ),
        ("Which is faster?", ["It is slow.", "It is not fast."], None),
        ("Which is faster?", ["It is slow, then fast.", "It is fast."], None),
        ("Which is faster?", ["It is slow.", "120 BPM"], None),
        ("Are they in the same key?", ["G minor", "It is in F sharp minor."], "not in"),
        ("Are they in the same key?", ["Gb minor", "F sharp minor."], "same key, Gb"),
        ("Are they in the same key?", ["Jazz.", "It is in F sharp minor."], None),
        ("Compare them.", ["It is slow.", "It is fast."], None),
    ],
)
def test_only_what_answers_state_is_concluded(question, answers, conclusion):
    names = ["a.ogg", "b.ogg"]
    found = comparison.asked(question, names, current=1).conclude(names, answers)
    if conclusion is None:
        assert found == ""
    else:
        assert found.startswith("By these answers, ") and conclusion in found


def test_three_songs_are_put_in_order():
    names, answers = ["a", "b", "c"], ["It is fast.", "It is slow.", "slow"]
    asked = comparison.asked("Which song is the fastest?", names, current=0)
    assert asked.conclude(names, answers) == (
        "By these answers, from slow to fast: b and c, a."
    )


def test_a_comparison_puts_one_question_to_each_song(talk, model, folder, told):
    talk.add(folder / "b.wav")
    text = talk.ask("Which song is faster?")
    mark, question = model.decoding().cut_mark, "What is the tempo?"
    a, b = (model.ask(song, question) + mark for song in talk.songs)
    assert text == f"a.wav: {a}\nb.wav: {b}"
    assert [turn.question for turn in talk.turns] == [question] * 2
    assert told[0] == (
        "the model hears one song at a time and cannot compare: each was asked "
        "'What is the tempo?'"
    )


def test_a_stopped_comparison_is_tried_again_in_its_place(talk, folder):
    talk.ask(FAST)
    talk.add(folder / "b.wav")
    pieces = talk.stream("Which song is faster?")
    for _ in range(2):
        next(pieces)
    pieces.close()
    assert [turn.song for turn in talk.turns] == [0, 0]
    "".join(talk.retry())
    # The turn before is still there.
    assert [turn.question for turn in talk.turns] == [FAST] + ["What is the tempo?"] * 2
    assert [turn.song for turn in talk.turns] == [0, 0, 1]


def test_what_cannot_be_tried_again_stays(talk, monkeypatch):
    talk.ask(FAST)

    def refuse(*_, **__):
        raise UserError("full")

    with monkeypatch.context() as busy:
        busy.setattr(talk.model, "submit", refuse)
        with pytest.raises(UserError, match="full"):
            talk.retry()
    assert [turn.question for turn in talk.turns] == [FAST]


def test_a_follow_up_reads_only_what_is_new(talk, folder):
    talk.set("turns", 9)
    first = talk.submit(FAST)
    first.text()
    second = talk.submit(LOUD)
    second.text()
    assert first.prompt_tokens <= second.cached_tokens < second.prompt_tokens
    talk.add(folder / "b.wav")
    talk.submit(FAST).text()
    third = talk.submit("And is the first song loud?")
    third.text()
    assert second.prompt_tokens <= third.cached_tokens < third.prompt_tokens


def test_songs_of_one_name_are_told_apart():
    assert labels(["a/x.ogg", "b/x.ogg", "y.ogg"]) == ["1 x.ogg", "2 x.ogg", "y.ogg"]
    assert named("the first one", ["only.ogg"]) == ([], "the first one")


def test_retrying_draws_another_answer_in_its_place(talk, model, told):
    with pytest.raises(UserError, match="nothing was asked"):
        talk.retry()
    before = talk.ask(FAST)
    found = ["".join(talk.retry()) for _ in range(3)]
    assert len({before, *found}) == 4
    assert len(talk.turns) == 1 and found[-1].startswith(talk.turns[0].answer)
    assert len(told) == 1 and "drawn at 0.7" in told[0]
    drawn = {"temperature": 0.7, "seed": 1}
    assert found[0].startswith(model.ask(talk.current, FAST, **drawn))


def test_what_came_of_a_stopped_answer_is_remembered(talk):
    pieces = talk.stream(FAST)
    first = next(pieces)
    pieces.close()
    assert talk.turns == [Turn(0, FAST, first)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", "hot", "temperature is 'hot': give a number"),
        ("temperature", -1, "generate.temperature"),
        ("max_new_tokens", "1.5", "give a whole number"),
        ("turns", -1, "turns is -1"),
        ("temperature", "nan", "generate.temperature is nan"),
        ("max_new_tokens", float("inf"), "give a whole number"),
        ("colour", "red", "no setting 'colour': choose among temperature"),
    ],
)
def test_impossible_settings_are_refused(talk, name, value, message):
    with pytest.raises(UserError, match=message):
        talk.set(name, value)
    assert talk.settings == {}


def test_settings_change_answers(talk, model):
    talk.set("temperature", "0.9")
    talk.set("seed", "4")
    talk.set("max_new_tokens", 3)
    expected = model.ask(talk.current, FAST, temperature=0.9, seed=4, max_new_tokens=3)
    assert talk.ask(FAST) == f"{expected} … (cut after 3 tokens)"


def test_a_conversation_is_saved_and_read(talk, model, folder, tmp_path, told):
    talk.add(folder / "b.wav", 0.2, 0.8)
    talk.ask("How fast is the first song?")
    talk.set("turns", 3)
    talk.save(tmp_path / "talk.json")
    read = Conversation.load(tmp_path / "talk.json", model, tell=told.append)
    assert read.turns == talk.turns and read.settings == {"turns": 3}
    for ours, theirs in zip(read.songs, talk.songs, strict=True):
        np.testing.assert_array_equal(ours.features, theirs.features)
        assert (ours.name, ours.start, ours.stop) == pytest.approx(
            (theirs.name, theirs.start, theirs.stop)
        )
    assert read.ask("and the first?") == talk.ask("and the first?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "its format is 2"),
        ({"turns": [{"song": 7, "question": "a", "answer": "b"}]}, "does not name"),
        ({"turns": [{"song": 0}]}, "is no conversation"),
        ({"turns": [{"song": 0, "question": "###", "answer": ""}]}, "contains '###'"),
        ({"settings": {"colour": 1}}, "no setting 'colour'"),
        ({"songs": [{"name": "no.wav", "start": None, "seconds": None}]}, "no.wav"),
        (
            {"songs": [{"name": 5, "start": None, "seconds": None}]},
            "is no conversation",
        ),
        ({"songs": [{"name": "a", "start": "x", "seconds": 1}]}, "is no conversation"),
        (
            {"turns": [{"song": True, "question": "", "answer": ""}]},
            "is no conversation",
        ),
        ({"settings": {"stop": 5}}, "stop is 5: give a text"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(
    talk, model, tmp_path, change, message
):
    path = tmp_path / "talk.json"
    talk.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Conversation.load(path, model)


def test_a_song_is_not_overwritten_by_a_conversation(talk, folder, tmp_path):
    song = (folder / "a.wav").read_bytes()
    with pytest.raises(UserError, match="is there already, and no saved conversation"):
        talk.save(folder / "a.wav")
    assert (folder / "a.wav").read_bytes() == song
    for _ in range(2):
        talk.save(tmp_path / "talk.json")


@pytest.mark.parametrize(
    ("start", "seconds", "message"),
    [
        (-5.0, None, "start is -5.0: give a second of the song"),
        (float("nan"), None, "start is nan"),
        (float("inf"), None, "start is inf"),
        (None, 0.0, "seconds is 0.0: at least 0.5 are heard"),
        (None, float("nan"), "seconds is nan"),
    ],
)
def test_impossible_parts_are_refused(talk, folder, start, seconds, message):
    with pytest.raises(UserError, match=message):
        talk.add(folder / "b.wav", start, seconds)
    assert len(talk.songs) == 1


def test_bytes_that_are_no_text_are_refused(talk):
    """As a shell gives them, or a file of another encoding."""
    with pytest.raises(UserError, match="holds bytes that are no text"):
        talk.ask("How l\udcffng?")
    assert talk.turns == []


def test_without_a_song_nothing_is_answered(model):
    with pytest.raises(UserError, match="no song yet"):
        model.chat().ask(FAST)


def test_another_part_of_a_song_forgets_what_was_said_of_it(talk, folder):
    talk.ask(FAST)
    excerpt = talk.listen(folder / "a.wav", 0.5, 0.6)
    assert (excerpt.start, talk.current, talk.turns) == (0.5, excerpt, [])


def test_a_release_is_shown_all_earlier_turns(model):
    """As its authors' demo does."""
    usage = dataclasses.replace(model.usage, earlier_turns=None)
    talk = Conversation(Model(model.listener, model.answerer, usage))
    talk.add((np.sin(np.arange(1000.0)), tiny.RATE))
    talk.ask(FAST)
    earlier = [(FAST, talk.turns[0].answer)]
    text = talk.ask(LOUD)
    expected = model.submit(talk.current, LOUD, earlier=earlier).answer().text
    assert text.startswith(expected)
