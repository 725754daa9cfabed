"""Captions, questions and answers about what is known of a recording.

A text says what is known and nothing else; asked about a fact that is not known, it
says so. As in `questions`, a text that names a value of a fact uses exactly its words,
and no other value of the same fact.
"""

from collections.abc import Mapping

import numpy as np

from musilingo_jax.corpora import questions
from musilingo_jax.corpora.facts import FACTS, INSTRUMENTS, UNSURE
from musilingo_jax.corpora.statements.values import key_of, stated

Known = Mapping[str, str]
"""Fact → value, for the facts that are known."""

# Families whose name is an adjective.
_ADJECTIVES = ("electronic", "classical", "ambient")

_SHORT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "family": (
        (
            *questions.SHORT["style"][0],
            "What genre is this song?",
            "What is the genre?",
        ),
        (
            "{value}",
            "It is {kind}.",
            "This is {kind}.",
            "I hear {kind}.",
            "The genre is {value}.",
        ),
    ),
    "beats": (
        (
            "How many beats per minute does it have?",
            "What is the tempo in beats per minute?",
            "How fast is it in BPM?",
            "What is the BPM?",
            "Give the tempo as a number.",
        ),
        (
            "{value}",
            "About {value} beats per minute.",
            "The tempo is about {value} beats per minute.",
            "It has about {value} beats per minute.",
        ),
    ),
    "vocals": (
        (
            "Are there vocals?",
            "Is anyone singing?",
            "Is it vocal or instrumental?",
            "Do you hear a singer?",
            "Does somebody sing?",
            "Is this an instrumental?",
            "Can you hear singing?",
        ),
        (
            "There are {value}.",
            "I hear {value}.",
            "The music has {value}.",
            "It is a piece with {value}.",
        ),
    ),
    "manner": (
        (
            "Is it played loud or quiet?",
            "Is the music loud or quiet?",
            "Is it loud?",
            "Is it quiet music?",
            "How loud do they play?",
        ),
        ("{value}", "It is {value}.", "They play {value}.", "The music is {value}."),
    ),
    "energy": (
        (
            "Is it energetic or calm?",
            "How much energy does it have?",
            "Is it calm music?",
            "Is the music energetic?",
            "Does it sound calm or energetic?",
        ),
        ("{value}", "It is {value}.", "It sounds {value}.", "The music is {value}."),
    ),
    "sound": (
        (
            "Is this music?",
            "What kind of sound is this?",
            "Do you hear music?",
            "Is there any music?",
        ),
        ("{value}", "It is {value}.", "I hear {value}.", "This is {value}."),
    ),
}
_INSTRUMENT = (
    (
        "Is there {a}?",
        "Do you hear {a}?",
        "Can you hear {a}?",
        "Does {a} play?",
        "Is {a} playing?",
    ),
    (
        "{yes}, there is {value}.",
        "{yes}, I hear {value}.",
        "There is {value}.",
        "I hear {value}.",
    ),
)
_STRINGS = (
    (
        "Are there strings?",
        "Do you hear strings?",
        "Can you hear strings?",
        "Do strings play?",
    ),
    (
        "{yes}, there are {value}.",
        "{yes}, I hear {value}.",
        "There are {value}.",
        "I hear {value}.",
    ),
)
_WHICH = (
    "Which instruments do you hear?",
    "What instruments are there?",
    "Which instruments play here?",
    "Name the instruments.",
)
_DESCRIBE = (
    "Describe this music.",
    "Describe the music in detail.",
    "What do you hear?",
    "Tell me about this piece.",
    "What is happening in this music?",
)
_NOT_MUSIC = (
    "This is no music: I hear {value}.",
    "I hear {value} and no music.",
    "There is no music here, but {value}.",
)
OF_RECORDINGS = tuple(name for name in FACTS if name not in ("style", "lead"))
"""The facts that can be known of a recording without its score."""
ASKED_OF_RECORDINGS = (*OF_RECORDINGS, "lead")
"""What is asked of recordings: also what cannot be told of any."""


def short(
    known: Known, fact: str, rng: np.random.Generator
) -> tuple[str, str, str | None]:
    """A question about a fact, its answer, and the value; 12 words at most.

    The value is None where the answer is that it cannot be told, or that there is no
    music.
    """
    asked, answers = _templates(fact)
    question = str(rng.choice(asked)).format(a=f"a {fact}")
    if fact != "sound" and known.get("sound", "music") != "music":
        return question, str(rng.choice(_NOT_MUSIC)).format(value=known["sound"]), None
    value = known.get(fact)
    if value is None:
        return question, f"{UNSURE}.", None
    answer = str(rng.choice(answers)).format(
        value=value,
        kind=f"{value} music" if value in _ADJECTIVES else value,
        yes="No" if value.startswith("no ") else "Yes",
    )
    return question, answer, value


def stated_value(answer: str, fact: str) -> str | None:
    """The value of a fact that an answer states; None if it states none or several.

    What is denied is not stated: "There is no music here, but noise." states "noise".
    """
    of = {key_of(value): value for value in FACTS[fact]}
    found = {each.key for each in stated(answer, of.values())}
    return of[found.pop()] if len(found) == 1 else None


def _templates(fact: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if fact == "strings":
        return _STRINGS
    if fact in INSTRUMENTS:
        return _INSTRUMENT
    if fact in _SHORT:
        return _SHORT[fact]
    asked, _ = questions.SHORT[fact]
    plain = {
        "tempo": ("{value}", "It is {value}.", "The tempo is {value}."),
        "mode": ("{value}", "It is {value}.", "It is in {value}."),
        "key": ("{value}", "It is in {value}.", "The key is {value}."),
        "drums": ("There are {value}.", "I hear {value}.", "The piece has {value}."),
        "lead": ("{value}", "The {value}.", "The lead instrument is the {value}."),
        "style": ("{value}", "The style is {value}."),
    }
    return asked, plain[fact]


def caption(known: Known, rng: np.random.Generator) -> str:
    """One or two sentences that name every known fact but the numbers."""
    if known.get("sound", "music") != "music":
        return str(rng.choice(_NOT_MUSIC)).format(value=known["sound"])
    words = [known[name] for name in ("energy", "tempo") if name in known]
    kind = f"{known['family']} piece" if "family" in known else "piece"
    phrase = " ".join([*words, kind])
    article = "an" if phrase[0] in "aeiou" else "a"
    begin = str(rng.choice(("This is {}", "We hear {}", "I hear {}")))
    sentence = begin.format(f"{article} {phrase}")
    if "key" in known:
        sentence += f" in {known['key']}"
    with_ = [known[name] for name in _playing(known, rng)]
    if with_:
        sentence += f" with {_listed(with_)}"
    if "manner" in known:
        sentence += f", played {known['manner']}"
    return sentence + "."


def long(known: Known, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Questions with an answer of several sentences: a description, the instruments."""
    return [
        (str(rng.choice(_DESCRIBE)), _description(known, rng)),
        (str(rng.choice(_WHICH)), _instruments(known, rng)),
    ]


def _description(known: Known, rng: np.random.Generator) -> str:
    sentences = [caption(known, rng)]
    if known.get("sound", "music") != "music":
        return sentences[0]
    if "beats" in known:
        sentences.append(f"It has about {known['beats']} beats per minute.")
    missing = [n for n in ("family", "vocals", "key") if n not in known]
    if missing:
        names = {"family": "the genre", "vocals": "if anyone sings", "key": "the key"}
        sentences.append(f"{UNSURE} {_listed([names[n] for n in missing], 'or')}.")
    return " ".join(sentences)


def _instruments(known: Known, rng: np.random.Generator) -> str:
    if known.get("sound", "music") != "music":
        return caption(known, rng)
    heard = [n for n in _playing(known, rng) if not known[n].startswith("no ")]
    if not heard:
        return f"{UNSURE} which instruments play."
    return str(rng.choice(("I hear {}.", "There are {}."))).format(_listed(heard))


def _playing(known: Known, rng: np.random.Generator) -> list[str]:
    """The known facts about who plays, in random order, those who do not at the end."""
    names = [n for n in (*INSTRUMENTS, "drums", "vocals") if n in known]
    rng.shuffle(names)
    return sorted(names, key=lambda name: known[name].startswith("no "))


def _listed(words: list[str], last: str = "and") -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
