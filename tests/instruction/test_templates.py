"""Pairs by rules: true, balanced, the same for the same seed, and never refused."""

import re
from collections import Counter
from pathlib import Path

import pytest

from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.instruction import filters, theory, wordings
from musilingo_jax.instruction.pairs import FAMILIES, Item, draw
from musilingo_jax.instruction.subjects import EXCLUSIVE, Subject, Vocabulary
from musilingo_jax.instruction.templates import Templates

KEYS = ("A minor", "F# minor", "C major", "Bb major", "E flat minor")
TAGS = ("guitar", "slow", "choir", "female voice", "loud")
YES_OR_NO = re.compile(r"(yes|no)\b", re.IGNORECASE)


def clip(number):
    """A clip about which everything is known, drawn from its number."""

    def pick(name, options):
        return draw(options, name, number)

    key = pick("key", KEYS)
    return Subject(
        clip=f"{number}.ogg:1",
        name=f"{number}.ogg",
        audio=Path(f"/{number}.ogg"),
        split="train",
        facts={
            "key": key,
            "mode": key.split()[-1],
            "tempo": pick("tempo", ("61.7", "98", "119.5", "174")),
            "metre": pick("metre", ("3", "4")),
            "drums": pick("drums", ("drums", "no drums")),
            "vocals": pick("vocals", ("yes", "no")),
            "style": pick("style", ("jazz", "rock", "waltz")),
            "loudness": "-14.2 LUFS",
        },
        tags=(pick("tag", TAGS), "piano"),
        chords=("A minor", "F major", "A minor"),
        sections=pick("sections", (("A", "B", "A"), ("A", "B"))),
    )


CLIPS = [clip(number) for number in range(120)]
VOCABULARY = Vocabulary.of(CLIPS, (*EXCLUSIVE, "style"), complete=True)
RULES = Templates(VOCABULARY, seed=3, most=100)


def all_pairs(rules=RULES, clips=CLIPS):
    return [
        (subject, family, pair)
        for subject in clips
        for family in FAMILIES
        for pair in rules.pairs(Item(subject, family))
    ]


PAIRS = all_pairs()


def test_nothing_that_rules_make_is_refused():
    for subject in CLIPS:
        for family in FAMILIES:
            pairs = RULES.pairs(Item(subject, family))
            kept, refused = filters.sift(pairs, subject, VOCABULARY)
            assert not refused and len(kept) == len(pairs) > 0
    assert not any("{" in pair.question + pair.answer for _, _, pair in PAIRS)


def is_true(subject, question):
    """Whether a question with yes or no is to be answered by yes; None if unknown."""
    facts = subject.facts
    if found := re.search(r"(drums|vocals)", question):
        thing = found[1]
        there = facts[thing] in ("yes", thing)
        return there != ("without" in question)
    if (key := named_key(question)) is not None:
        return key == named_key(facts["key"])
    if found := re.search(r"\b(major|minor)", question):
        return found[1] == facts["mode"]
    if found := re.search(r"(faster|slower) than (\d+)", question):
        is_faster = float(facts["tempo"]) > int(found[2])
        return is_faster == (found[1] == "faster")
    if found := re.search(r"(\d) beats", question):
        return found[1] == facts["metre"]
    if found := re.search(r"(jazz|rock|waltz)\?", question):
        return facts["style"] == found[1] if "style" in question else None
    if found := re.search("“(.+)”", question):
        return found[1] in subject.tags
    return None


def test_yes_and_no_are_true_and_as_frequent():
    counts = Counter()
    for subject, family, pair in PAIRS:
        says = YES_OR_NO.match(pair.answer)
        if family != "understanding" or says is None:
            continue
        says_yes = says[1].lower() == "yes"
        truth = is_true(subject, pair.question)
        if truth is not None:
            assert truth == says_yes, pair
            counts[(pair.attribute or "tag", says_yes)] += 1
    names = {name for name, _ in counts}
    assert names == {"key", "mode", "tempo", "metre", "drums", "vocals", "style", "tag"}
    for name in names:  # A fair coin of 120 throws is out of this once in 100,000.
        assert 36 <= counts[(name, True)] <= 84, (name, counts)


def test_the_question_does_not_tell_whether_drums_are_there():
    asked = [(s, p) for s, _, p in PAIRS if p.attribute == "drums"]
    by_polarity = Counter(
        ("without" in pair.question, YES_OR_NO.match(pair.answer)[1])
        for _, pair in asked
    )
    assert min(by_polarity.values()) > 10 and len(by_polarity) == 4


def test_values_are_those_that_are_known():
    for subject, _, pair in PAIRS:
        if pair.attribute is None:
            continue
        assert pair.value == subject.facts[pair.attribute]
        if pair.attribute == "key":
            assert named_key(pair.answer) == named_key(pair.value)
        if pair.attribute == "tempo":
            assert single_tempo(pair.answer) == pytest.approx(
                float(pair.value), abs=0.5
            )


def test_nothing_false_is_asked_where_absence_is_not_known():
    unsure = Vocabulary.of(CLIPS, EXCLUSIVE, complete=False)
    pairs = all_pairs(Templates(unsure, seed=3, most=100))
    closed = [p.question for _, _, p in pairs if YES_OR_NO.match(p.answer)]
    assert closed and not any("style" in q or "“" in q for q in closed)
    lists = Subject("a", "a", None, "train", facts={"style": "jazz, rock"})
    both = Vocabulary.of([*CLIPS, lists], ("style",), complete=False)
    (pair,) = Templates(both, 0, 9).pairs(Item(lists, "understanding"))
    assert "jazz, rock" in pair.answer


def test_draws_depend_on_the_seed_and_the_clip_alone():
    assert PAIRS[:40] == all_pairs(clips=CLIPS[:10])[:40]
    other = all_pairs(Templates(VOCABULARY, seed=4, most=100))
    same = sum(mine[2] == theirs[2] for mine, theirs in zip(PAIRS, other, strict=True))
    assert same < 0.5 * len(PAIRS)
    questions = Counter(pair.question for _, _, pair in PAIRS)
    assert len(questions) > 100


def test_most_chooses_some_of_the_pairs_in_their_order():
    few = Templates(VOCABULARY, seed=3, most=2)
    for subject in CLIPS[:20]:
        item = Item(subject, "understanding")
        every, chosen = RULES.pairs(item), few.pairs(item)
        assert len(chosen) == 2 < len(every)
        assert chosen == [pair for pair in every if pair in chosen]


def test_captions_are_answers_and_facts_become_one_where_there_is_none():
    long = " ".join(["A slow piano piece."] * 12)
    told = Subject("a", "a", None, "train", captions=("Short one.", long))
    short, full = RULES.pairs(Item(told, "captioning"))
    assert short.answer == "Short one." and short.question in wordings.SHORT_CAPTION
    assert full.answer == long and full.question in wordings.LONG_CAPTION
    (made,) = RULES.pairs(Item(CLIPS[0], "captioning"))
    facts = CLIPS[0].facts
    bpm = round(float(facts["tempo"]))
    for part in (facts["key"], f"about {bpm} BPM", f"The style is {facts['style']}"):
        assert part in made.answer
    assert ("without drums" in made.answer) == (facts["drums"] == "no drums")
    nothing = Subject("b", "b", None, "train")
    assert [RULES.pairs(Item(nothing, family)) for family in FAMILIES] == [[], [], []]


@pytest.mark.parametrize(
    ("key", "relative", "parallel", "dominant"),
    [
        ("A minor", "C major", "A major", "E major"),
        ("F# minor", "A major", "F# major", "C# major"),
        ("F sharp minor", "A major", "F sharp major", "C sharp major"),
        ("B minor", "D major", "B major", "F# major"),
        ("Bb major", "G minor", "Bb minor", "F major"),
        ("E flat minor", "G flat major", "E flat major", "B flat major"),
        ("E major", "C# minor", "E minor", "B major"),
        ("Db major", "Bb minor", "Db minor", "Ab major"),
    ],
)
def test_keys_are_spelt_as_musicians_do(key, relative, parallel, dominant):
    found = theory.key_of(Subject("a", "a", None, "train", facts={"key": key}))
    assert str(found) == key
    names = found.relative, found.parallel, found.dominant
    assert [*map(str, names)] == [relative, parallel, dominant]


def test_bars_are_as_long_as_they_are():
    facts = {"tempo": "120", "metre": "3"}
    known = Subject("a", "a", None, "train", facts=facts)
    answers = [pair.answer for pair in RULES.pairs(Item(known, "reasoning"))]
    assert any("a bar lasts about 1.5 seconds" in answer for answer in answers)
    assert any("60 / 120 = 0.50 seconds" in answer for answer in answers)
    assert any("near 72 BPM" in answer for answer in answers)
    assert theory.key_of(known) is None


def test_words_that_fit_end_with_what_is_missing():
    """ "No voices and DJ scratching" would deny the scratching, too."""
    subject = Subject(
        clip="a.ogg",
        name="a.ogg",
        audio=None,
        split="train",
        tags=("no voices", "R&B", "no other instruments", "DJ scratching"),
    )
    everything = Vocabulary.of([subject], (), complete=False)
    rules = Templates(everything, seed=3, most=100)
    (pair,) = rules.pairs(Item(subject, "understanding"))
    assert pair.answer == "R&B, DJ scratching, no voices and no other instruments."
    assert filters.sift([pair], subject, everything) == ([pair], [])
