"""How rules ask and answer: several wordings for each thing, in regular English.

`{value}` is the true value, `{other}` a false one. An answer states the true value,
whatever is asked, so that it can be checked and scored.
"""

from typing import NamedTuple

VERSION = 2
"""Of all wordings and rules; another one makes other pairs."""

Texts = tuple[str, ...]


class Asked(NamedTuple):
    """The wordings for one kind of question.

    Attributes:
      open: questions for the value.
      answers: to these.
      closed: questions whether it is `{value}`, which may be a false one.
      yes, no: answers to these.
    """

    open: Texts
    answers: Texts
    closed: Texts
    yes: Texts
    no: Texts


BY_ATTRIBUTE = {
    "key": Asked(
        (
            "Which key is this music in?",
            "What is the key?",
            "In which key is it played?",
            "Name the key of this piece.",
        ),
        ("It is in {value}.", "The key is {value}.", "The music is in {value}."),
        ("Is it in {value}?", "Is {value} the key of this music?"),
        ("Yes, it is in {value}.", "Yes, the key is {value}."),
        ("No, it is in {value}.", "No, the key is {value}."),
    ),
    "mode": Asked(
        ("Is the music major or minor?", "Which mode is it in?", "What is the mode?"),
        ("It is in a {value} key.", "The mode is {value}.", "It is {value}."),
        ("Is it in a {value} key?", "Does it sound {value}?"),
        ("Yes, it is in a {value} key.", "Yes, the mode is {value}."),
        ("No, it is in a {value} key.", "No, the mode is {value}."),
    ),
    "metre": Asked(
        (
            "How many beats are in a bar?",
            "What is the metre?",
            "How would you count it?",
        ),
        ("Each bar has {value} beats.", "There are {value} beats in a bar."),
        ("Does each bar have {value} beats?", "Are there {value} beats in a bar?"),
        ("Yes, each bar has {value} beats.", "Yes, one counts {value} beats a bar."),
        ("No, each bar has {value} beats.", "No, one counts {value} beats a bar."),
    ),
    "loudness": Asked(
        ("How loud is the recording?", "What is its integrated loudness?"),
        ("It has {value}.", "Its integrated loudness is {value}."),
        (),
        (),
        (),
    ),
    "lead": Asked(
        (
            "Which instrument leads?",
            "What plays the melody?",
            "Name the lead instrument.",
        ),
        ("The {value} leads.", "It is led by the {value}.", "The lead is the {value}."),
        ("Does the {value} lead?", "Is the melody played by the {value}?"),
        ("Yes, the {value} leads.", "Yes, the lead is the {value}."),
        ("No, the {value} leads.", "No, the lead is the {value}."),
    ),
    "tempo": Asked(
        ("What is the tempo?", "How fast is this music?", "Name the tempo."),
        ("The tempo is {value}.", "It has a {value} tempo."),
        ("Is the tempo {value}?", "Does it have a {value} tempo?"),
        ("Yes, the tempo is {value}.", "Yes, it has a {value} tempo."),
        ("No, the tempo is {value}.", "No, it has a {value} tempo."),
    ),
}

OTHER = Asked(
    ("What is the {name} of this music?", "Which {name} is it?", "Name the {name}."),
    ("The {name} is {value}.", "Its {name} is {value}."),
    ("Is the {name} {value}?", "Would you say that the {name} is {value}?"),
    ("Yes, the {name} is {value}.",),
    ("No, the {name} is {value}.",),
)
"""For attributes without wordings of their own; `{name}` is the attribute."""

BPM = Asked(
    (
        "What is the tempo in beats per minute?",
        "How many beats per minute does it have?",
        "How fast is it, in BPM?",
    ),
    (
        "The tempo is about {value} BPM.",
        "It has about {value} beats per minute.",
        "About {value} BPM.",
    ),
    ("Is it {than} {limit} BPM?", "Is the tempo {than} {limit} beats per minute?"),
    ("Yes, the tempo is about {value} BPM.", "Yes, it is at about {value} BPM."),
    ("No, the tempo is about {value} BPM.", "No, it is at about {value} BPM."),
)
"""For a tempo that is a number; `{than}` is `FASTER` or `SLOWER`."""
FASTER, SLOWER = "faster than", "slower than"

THERE = (
    ("Do you hear {thing}?", "Can {thing} be heard?", "Does it have {thing}?"),
    ("Is it without {thing}?", "Does it do without {thing}?"),
)
"""Whether a thing is there, and whether it is not."""
IS_THERE = ("{answer}, I hear {thing}.", "{answer}, it has {thing}.")
IS_ABSENT = ("{answer}, I hear no {thing}.", "{answer}, it has no {thing}.")

FITS = ("Does “{tag}” fit this music?", "Would you say “{tag}” of this music?")
DO_FIT = ("Which words fit this music?", "What comes to mind when you hear it?")

CHORDS = ("Which chords does it use?", "Name the chords that you hear.")
FIRST_CHORD = ("With which chord does it begin?", "What is the first chord?")
RETURNS = (
    ("Does a section come back later?", "Is any section heard again?"),
    ("Is every section different?", "Does it never come back to an earlier section?"),
)

SHORT_CAPTION = (
    "Describe this music.",
    "What do you hear?",
    "Describe the music in a few words.",
    "What is this music like?",
    "Write a caption for this clip.",
    "Sum up what you hear.",
    "How would you describe this piece?",
    "Tell me about this music.",
)
LONG_CAPTION = (
    "Describe this music in detail.",
    "Write a detailed caption for this clip.",
    "Describe all that you hear.",
    "Give a full description of this music.",
    "What is this music like? Describe it at length.",
)
OPENINGS = ("This is music", "A piece of music", "We hear a piece", "The clip is")
