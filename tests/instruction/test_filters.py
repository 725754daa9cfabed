"""Which pairs are refused, and why; and that good ones are not."""

import pytest

from musilingo_jax.instruction import filters, truth
from musilingo_jax.instruction.pairs import Pair
from musilingo_jax.instruction.subjects import Subject, Vocabulary, presence_of

FACTS = {
    "key": "A minor",
    "mode": "minor",
    "tempo": "112.4",
    "metre": "4",
    "drums": "no drums",
    "vocals": "yes",
    "style": "jazz",
}
SUBJECT = Subject("a", "a", None, "train", facts=FACTS, tags=("piano", "calm"))
OTHERS = Subject("b", "b", None, "train", facts={"style": "rock"}, tags=("guitar",))
EXCLUSIVE = ("key", "mode", "tempo", "metre", "style")
VOCABULARY = Vocabulary.of([SUBJECT, OTHERS], EXCLUSIVE, complete=True)
ASKED = "What do you hear in it?"


def sifted(*pairs):
    return filters.sift([Pair(*pair) for pair in pairs], SUBJECT, VOCABULARY)


@pytest.mark.parametrize(
    ("reason", "question", "answer"),
    [
        (filters.EMPTY, ASKED, "   "),
        (filters.EMPTY, "", "It is slow."),
        (filters.SHORT, "Tempo", "It is slow."),
        (filters.EMPTY, ASKED, "…"),
        (filters.LONG, ASKED, "la " * 301),
        (filters.LONG, "la " * 61, "It is slow."),
        # As a language model of 135M parameters wrote.
        (filters.BLANK, "How to play it", "[response] The answer is: [response]"),
        (filters.BLANK, ASKED, "It is <one word>."),
        (filters.BLANK, ASKED, "It is played by a {instrument}."),
        (filters.BLANK, ASKED, "Insert the tempo here."),
        (
            filters.SOURCE,
            ASKED,
            "There is no home release mentioned in the above clip.",
        ),
        (filters.SOURCE, ASKED, "The above text is calm."),
        (filters.RECORD, ASKED, 'The piece is called "A calm piano".'),
        (filters.RECORD, ASKED, "A song titled “Calm”."),
        (filters.RECORD, "What is the title?", "It is the Lion of Apex."),
        (filters.ECHO, "How to practise it", "No song is too small."),
        (filters.ECHO, "What its harmony or metre implies:", "It is in A minor."),
        (filters.LETTERS, ASKED, "这是一首慢歌。"),
        (filters.LETTERS, ASKED, "It is slow \ufffd."),
        (filters.LANGUAGE, ASKED, "Das Stück klingt ruhig und sanft mit viel Hall"),
        (filters.UNANSWERABLE, ASKED, "The tempo is not specified."),
        (filters.UNANSWERABLE, ASKED, "One can't tell from this."),
        (filters.UNANSWERABLE, ASKED, "The text doesn't mention it."),
        (filters.UNANSWERABLE, ASKED, "It remains unclear."),
        (filters.SOURCE, ASKED, "According to the caption, it is slow."),
        (filters.SOURCE, ASKED, "Based on the information, it is slow."),
        (filters.SOURCE, "What do the tags say of it?", "It is slow."),
        (filters.SOURCE, ASKED, "The metadata says that it is slow."),
        (filters.RECORD, "Who composed this?", "A calm composer."),
        (filters.RECORD, "What is the title of this song?", "Calm."),
        (filters.RECORD, "Which artist is it?", "A calm one."),
        (filters.RECORD, "How long is this clip?", "Ten seconds."),
        (filters.PROGRAM, ASKED, "As an AI, I find it calm."),
        (filters.PROGRAM, ASKED, "I cannot listen to it."),
        (filters.CONTRADICTS, ASKED, "It is in G major."),
    ],
)
def test_a_bad_pair_is_refused_for_its_reason(reason, question, answer):
    kept, (refused,) = sifted((question, answer))
    assert not kept and refused.reason == reason and refused.detail


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (ASKED, "A calm piano piece in A minor at about 112 BPM."),
        ("Do you hear a piano?", "Yes."),
        ("Which instrument plays?", "Piano."),
        (ASKED, "The composer uses a piano; it is an unspecific mood of longing."),
        ("How would you describe it in a few words?", "It is calm."),
        ("Write a caption for this clip.", "A calm piano piece."),
        ("What would you call the mood?", "Sehnsucht, as Germans say: a calm longing."),
        ("How could it be brighter?", "It is in A minor, so with major thirds."),
        (ASKED, "It is what is called a ballad, above all for the piano [1]."),
        (ASKED, "It has 4 < 5 beats, and no more > 3."),
        ("How would you practise it?", "It is slow, with a metronome."),
        (ASKED, "It is written in A minor, with a theme stated in the bass."),
        (ASKED, "The passage is fast, with a technique called “tremolo”."),
    ],
)
def test_a_good_pair_is_kept(question, answer):
    kept, refused = sifted((question, answer))
    assert not refused and len(kept) == 1


def test_a_question_is_asked_once_and_the_first_answer_counts():
    kept, refused = sifted(
        ("Is it calm?", "Yes."), ("is it  CALM ?", "It is."), ("Is it slow?", "Yes.")
    )
    assert [pair.answer for pair in kept] == ["Yes.", "Yes."]
    assert [(r.reason, r.pair.answer) for r in refused] == [("duplicate", "It is.")]
    # What is refused for another reason does not take the question away.
    kept, refused = sifted(("How is it?", "Not specified."), ("How is it?", "Calm."))
    assert [pair.answer for pair in kept] == ["Calm."] and len(refused) == 1


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("It is in G major.", "key: A minor"),
        ("It is in a major key.", "mode: minor"),
        ("It is not in a major key.", None),
        ("In A minor, whose relative is C major.", None),
        ("The chords are A minor and F major.", None),
        ("A progression of F major and G major.", None),
        ("The key is G major, and the chords are G major and D major.", "key: A minor"),
        ("About 90 BPM.", "tempo: 112.4"),
        ("About 110 BPM.", None),
        ("It feels like 225 BPM.", None),
        ("A waltz in 3/4.", "metre: 4"),
        ("In 4/4 time, or 2/4.", None),
        ("It has three beats in a bar.", "metre: 4"),
        ("It is not in 3/4 but in 4/4.", None),
        ("It swings in triple metre.", "metre: 4"),
        ("A drum beat drives it. Drums lead.", "drums: no"),
        ("There are no drums.", None),
        ("It goes without drums.", None),
        ("There are no vocals.", "vocals: yes"),
        ("Soft vocals.", None),
        ("It is rock.", "style: jazz"),
        ("It is jazz, not rock.", None),
        ("There is no piano.", "piano: yes"),
        ("A guitar plays.", "guitar: no"),
        ("No guitar plays.", None),
    ],
)
def test_what_contradicts_a_fact(answer, fact):
    assert truth.contradicted(Pair(ASKED, answer), SUBJECT, VOCABULARY) == fact


@pytest.mark.parametrize(
    ("question", "answer", "fact"),
    [
        ("Are there drums?", "Yes.", "drums: no"),
        ("Are there drums?", "No.", None),
        ("Is it without drums?", "Yes, it has no drums.", None),
        ("Is it without drums?", "No, it has drums.", "drums: no"),
        ("Do you hear vocals?", "No.", "vocals: yes"),
        ("Is it fast?", "No, it is rather calm.", None),
        ("Do you hear a piano?", "No.", "piano: yes"),
        ("Do you hear a guitar?", "No.", None),
    ],
)
def test_yes_and_no_mean_what_is_asked(question, answer, fact):
    assert truth.contradicted(Pair(question, answer), SUBJECT, VOCABULARY) == fact


def test_nothing_contradicts_a_clip_of_which_nothing_is_known():
    unknown = Subject("c", "c", None, "train", captions=("A song.",))
    none = Vocabulary.of([unknown], EXCLUSIVE, complete=False)
    pair = Pair(ASKED, "In G major at 90 BPM in 3/4, with drums and no piano.")
    assert truth.contradicted(pair, unknown, none) is None


@pytest.mark.parametrize(
    ("attribute", "value", "found"),
    [
        ("drums", "no drums", ("drums", False)),
        ("Drums", "drums", ("drums", True)),
        ("vocals", "yes", ("vocals", True)),
        ("vocals", "absent", ("vocals", False)),
        ("key", "A minor", None),
        ("style", "no wave", None),
    ],
)
def test_which_facts_say_that_something_is_there(attribute, value, found):
    assert presence_of(attribute, value) == found
