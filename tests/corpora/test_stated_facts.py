"""Facts as questions: the reference answers state what is scored."""

import pytest

from musilingo_jax.corpora import stated_facts
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts

STATED = {
    "genre": ["house", "drum and bass"],
    "genres": ["Jazz Vocal", "Old-Time / Historic", "Hip-Hop"],
    "instruments": ["piano", "classical guitar", "drums"],
    "ensemble": ["Pairs Clarinet-Horn-Bassoon"],
    "mood": ["calm"],
    "key": ["Bb minor"],
    "tempo": ["139.5"],
    "pace": ["slow"],
    "vocals": ["no"],
}


def rows(stated, name="a.mp3"):
    sound = Wanted(names=(name,))
    return list(
        stated_facts.rows(stated, where="table.csv:2", sound=sound, split="test")
    )


def score(row, vocabulary):
    question = AnsweredQuestion(
        clip="a",
        question=row.question,
        reference=row.answer,
        answer=row.answer,
        attribute=row.attribute,
        value=row.value,
        options=(),
        record=None,
        inferred=False,
    )
    return facts.score([question], [row.answer], vocabulary).scores


def test_every_reference_states_its_own_value_and_no_other():
    others = {
        "genre": ["bass", "techno"],
        "genres": ["Jazz", "Historic"],
        "instruments": ["guitar", "violin"],
        "ensemble": ["Solo Horn"],
        "mood": ["sad"],
        "key": ["B minor"],
        "tempo": ["70"],
        "pace": ["fast"],
        "vocals": ["yes"],
    }
    every = rows(STATED) + rows(others)
    vocabulary = facts.vocabulary((row.attribute, row.value) for row in every)
    assert set(vocabulary) == set(STATED)
    for row in every:
        scores = score(row, vocabulary)
        honest = {name: s for name, s in scores.items() if "published" not in name}
        assert honest and all(values[0] == 1 for values in honest.values()), row


def test_values_are_said_once_and_in_their_order():
    (row,) = rows({"instruments": ["piano", "violin", "piano", "cello"]})
    assert row.answer == "The instruments are piano, violin and cello."
    assert (row.attribute, row.value) == ("instruments", "piano, violin, cello")
    assert (row.where, row.split, row.sound.names) == (
        "table.csv:2",
        "test",
        ("a.mp3",),
    )


def test_lists_that_no_metric_reads_have_no_value():
    one, several, tags = rows({"mood": ["calm"]}) + rows(
        {"mood": ["calm", "sad"], "tags": ["slow"]}
    )
    assert (one.attribute, one.value) == ("mood", "calm")
    assert (several.attribute, several.value) == (None, None)
    assert several.answer == "The moods and themes are calm and sad."
    assert (tags.attribute, tags.answer) == (None, "slow.")


def test_a_song_without_any_fact_is_a_row_without_an_answer():
    (row,) = rows({"genre": [], "instruments": []})
    assert (row.answer, row.attribute) == ("", None)
    assert row.question == rows({"genre": ["pop"]})[0].question
    assert [r.attribute for r in rows({"genre": [], "key": ["C major"]})] == ["key"]


@pytest.mark.parametrize("attribute", STATED)
def test_the_question_follows_from_the_song_alone(attribute):
    asked = [rows({attribute: ["x"]}, f"{number}.mp3")[0] for number in range(60)]
    assert len({row.question for row in asked}) == 4
    again = rows({"key": ["C major"], attribute: ["x"]}, "7.mp3")[-1]
    assert again.question == asked[7].question
