"""Questions and answers by rules, from what is known: right by construction.

Wordings, and whether a question with yes or no is answered by yes, are drawn from the
seed and the clip. Both answers are as likely, and whoever only reads the question
cannot tell which is right:

    drums: there     Do you hear drums?    Yes, …     Is it without drums?  No, …
    drums: absent    Is it without drums?  Yes, …     Do you hear drums?    No, …
    key: A minor     Is it in A minor?     Yes, …     Is it in G major?     No, …

A false value is drawn only where it is known to be false: of an exclusive attribute, or
of tags that are known to be all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from musilingo_jax.corpora.statements.keys import MODES, NOTES, named_key
from musilingo_jax.corpora.statements.negation import begins_with_denial
from musilingo_jax.instruction import reasoning, theory, wordings
from musilingo_jax.instruction.pairs import (
    CAPTIONING,
    REASONING,
    UNDERSTANDING,
    Item,
    Pair,
    draw,
    number,
)
from musilingo_jax.instruction.subjects import Subject, Vocabulary, presence_of
from musilingo_jax.instruction.wordings import Asked, Texts

# False values that there are, whatever the clips at hand have.
_ALWAYS = {
    "key": tuple(f"{note} {mode}" for mode in MODES for note in NOTES),
    "mode": MODES,
    "metre": ("3", "4"),
}
# Words from which a caption is called long.
_LONG = 40
# Tags that one answer lists.
_MOST_TAGS = 8


@dataclass(frozen=True)
class Templates:
    """The rules, with what they draw from.

    Attributes:
      vocabulary: of all clips.
      seed: of all draws.
      most: pairs of one item.
    """

    vocabulary: Vocabulary
    seed: int
    most: int

    def pairs(self, item: Item) -> list[Pair]:
        """The pairs of a clip and a family, those that are drawn if there are more."""
        subject, make = item.subject, _FAMILIES[item.family]
        found = list(make(self, subject))
        key = self.seed, subject.clip
        ranked = sorted(
            range(len(found)),
            key=lambda place: number("most", found[place].question, *key),
        )
        return [found[place] for place in sorted(ranked[: self.most])]


def _understanding(rules: Templates, subject: Subject) -> Iterator[Pair]:
    for name, value in subject.facts.items():
        if (presence := presence_of(name, value)) is not None:
            yield _there(*presence, rules.seed, subject.clip, Pair("", "", name, value))
        elif name == "tempo" and (bpm := theory.bpm_of(subject)) is not None:
            yield from _tempo(bpm, value, rules.seed, subject.clip)
        else:
            yield from _valued(rules, subject.clip, name, value)
    yield from _tags(rules, subject)
    yield from _chords(rules, subject)
    yield from _sections(rules, subject)


def _captioning(rules: Templates, subject: Subject) -> Iterator[Pair]:
    captions = subject.captions or tuple(_composed(rules, subject))
    asked: list[str] = []
    for caption in captions:
        is_long = len(caption.split()) >= _LONG
        questions = wordings.LONG_CAPTION if is_long else wordings.SHORT_CAPTION
        # With more captions than questions, the filter of duplicates counts the rest.
        left = [question for question in questions if question not in asked]
        key = "caption", len(asked), rules.seed, subject.clip
        asked.append(draw(left or questions, *key))
        yield Pair(asked[-1], caption)


def _reasoning(rules: Templates, subject: Subject) -> Iterator[Pair]:
    return reasoning.pairs(subject, rules.seed)


_FAMILIES = {
    UNDERSTANDING: _understanding,
    CAPTIONING: _captioning,
    REASONING: _reasoning,
}


def _there(thing: str, is_there: bool, seed: int, clip: str, fact: Pair) -> Pair:
    """Whether something is there, or whether it is not."""
    key = thing, seed, clip
    says_yes = bool(number("yes", *key) % 2)
    asks_for_presence = says_yes == is_there
    question = draw(wordings.THERE[not asks_for_presence], "question", *key)
    answer = draw(wordings.IS_THERE if is_there else wordings.IS_ABSENT, "answer", *key)
    given = {"thing": thing, "answer": "Yes" if says_yes else "No"}
    return fact._replace(
        question=question.format(**given), answer=answer.format(**given)
    )


def _valued(rules: Templates, clip: str, name: str, value: str) -> Iterator[Pair]:
    """For the value of a fact, and whether it is this or another one."""
    asked = wordings.BY_ATTRIBUTE.get(name, wordings.OTHER)
    key = name, rules.seed, clip
    yield _open(asked, name, value, value, *key)
    known = rules.vocabulary.values.get(name, ())
    others = sorted({*known, *_ALWAYS.get(name, ())} - {value} if known else ())
    if name == "key":  # Another spelling of the same key is not another key.
        true = named_key(value)
        others = [other for other in others if named_key(other) != true]
    if not others or not asked.closed or "," in value:
        return
    says_yes = bool(number("yes", *key) % 2)
    named = value if says_yes else draw(others, "other", *key)
    question = draw(asked.closed, "closed", *key).format(name=name, value=named)
    answers = asked.yes if says_yes else asked.no
    answer = draw(answers, "answer", *key).format(name=name, value=value)
    yield Pair(question, answer, name, value)


def _open(asked: Asked, name: str, spoken: str, value: str, *key: object) -> Pair:
    question = draw(asked.open, "open", *key).format(name=name)
    answer = draw(asked.answers, "open answer", *key).format(name=name, value=spoken)
    return Pair(question, answer, name, value)


def _tempo(bpm: int, value: str, *key: object) -> Iterator[Pair]:
    """For a tempo in beats per minute, and whether it is above or below another one."""
    yield _open(wordings.BPM, "tempo", str(bpm), value, *key)
    says_yes, is_above = (bool(number(name, *key) % 2) for name in ("yes", "above"))
    # Far enough that a tempo which is a little off does not change the answer.
    step = 10 * -(-bpm // 50)
    limit = 10 * round(bpm / 10) + (-step if is_above else step)
    than = wordings.FASTER if says_yes == is_above else wordings.SLOWER
    question = draw(wordings.BPM.closed, "closed", *key)
    answers = wordings.BPM.yes if says_yes else wordings.BPM.no
    answer = draw(answers, "closed answer", *key).format(value=bpm)
    yield Pair(question.format(than=than, limit=limit), answer, "tempo", value)


def _tags(rules: Templates, subject: Subject) -> Iterator[Pair]:
    if not subject.tags:
        return
    key = rules.seed, subject.clip
    # What is missing comes last: "no voices and drums" would deny the drums.
    shown = tuple(sorted(subject.tags[:_MOST_TAGS], key=begins_with_denial))
    fitting = _listed(shown)
    fitting = fitting[0].upper() + fitting[1:]
    yield Pair(draw(wordings.DO_FIT, "fit", *key), f"{fitting}.")
    absent = sorted({*rules.vocabulary.tags} - {*subject.tags})
    if not absent:
        return
    says_yes = bool(number("yes tag", *key) % 2)
    tag = draw(subject.tags if says_yes else absent, "tag", *key)
    question = draw(wordings.FITS, "fits", *key).format(tag=tag)
    fits = f"Yes, “{tag}” fits." if says_yes else f"No, not “{tag}”."
    yield Pair(question, fits)


def _chords(rules: Templates, subject: Subject) -> Iterator[Pair]:
    if not subject.chords:
        return
    key = rules.seed, subject.clip
    names = tuple(dict.fromkeys(subject.chords))
    yield Pair(
        draw(wordings.CHORDS, "chords", *key), f"I hear the chords {_listed(names)}."
    )
    yield Pair(
        draw(wordings.FIRST_CHORD, "first", *key),
        f"It begins with a chord of {subject.chords[0]}.",
    )


def _sections(rules: Templates, subject: Subject) -> Iterator[Pair]:
    if len(subject.sections) < 2:
        return
    key = rules.seed, subject.clip
    returns = len(set(subject.sections)) < len(subject.sections)
    says_yes = bool(number("yes section", *key) % 2)
    question = draw(wordings.RETURNS[says_yes != returns], "returns", *key)
    answer = "Yes" if says_yes else "No"
    form = "-".join(subject.sections)
    what = "a section comes back" if returns else "each section is a new one"
    yield Pair(question, f"{answer}: {what}, the form is {form}.")


def _composed(rules: Templates, subject: Subject) -> Iterator[str]:
    """A caption that is made from facts, if there are any."""
    facts = dict(subject.facts)
    phrases = list(_phrases(facts, theory.bpm_of(subject)))
    if subject.tags:
        facts["fitting words"] = ", ".join(subject.tags[:_MOST_TAGS])
    if not phrases and not facts:
        return
    opening = draw(wordings.OPENINGS, "opening", rules.seed, subject.clip)
    opening += " a piece" if opening.endswith("is") else ""
    rest = "; ".join(f"the {name} is {value}" for name, value in facts.items())
    sentences = [f"{opening} {', '.join(phrases)}."] if phrases else []
    sentences += [f"{rest[0].upper()}{rest[1:]}."] if rest else []
    yield " ".join(sentences).replace("fitting words is", "fitting words are")


def _phrases(facts: dict[str, str], bpm: int | None) -> Iterator[str]:
    """What is said in the first sentence, which is taken out of the facts."""
    if "key" in facts:
        yield f"in {facts.pop('key')}"
        facts.pop("mode", None)
    elif "mode" in facts:
        yield f"in a {facts.pop('mode')} key"
    if "tempo" in facts:
        value = facts.pop("tempo")
        yield f"at a {value} tempo" if bpm is None else f"at about {bpm} BPM"
    if "metre" in facts:
        yield f"with {facts.pop('metre')} beats in a bar"
    facts.pop("loudness", None)
    for name in list(facts):
        if (presence := presence_of(name, facts[name])) is not None:
            thing, is_there = presence
            del facts[name]
            yield f"with {thing}" if is_there else f"without {thing}"


def _listed(names: Texts) -> str:
    """Names as people say them, such as "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
