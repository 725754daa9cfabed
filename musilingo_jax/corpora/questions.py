"""Captions, questions and answers about a composed piece, in regular English.

One rule makes answers scorable: a text that names a value of `ATTRIBUTES` uses exactly
its words ("no drums", "A minor"), and no other value of the same attribute.
"""

import numpy as np

from musilingo_jax.corpora.synthetic import ATTRIBUTES, Piece

# Fields: an attribute; `a_…`, the same after its article; see `_fill` for the others.
CAPTIONS = (
    "This is {a_tempo} {style} piece in {key}, led by the {lead}, with {drums}.",
    "{A_tempo} {style} piece in {key} with {a_lead} melody and {drums}.",
    "{A_tempo} {style} tune for {lead} in {key}, with {drums}.",
    "{A_style} piece in {key}: the {lead} leads, the tempo is {tempo}, with {drums}.",
    "The {lead} plays {a_tempo} {style} melody in {key}, with {drums}.",
    "The music is {tempo} and in {key}; {a_lead} leads the {style}, with {drums}.",
    "We hear {a_tempo} {style} tune in {key}, {a_lead} in front and {drums}.",
    "{A_lead} leads this {tempo} {style} piece in {key} with {drums}.",
    "In {key}, {a_lead} plays {a_tempo} {style} piece with {drums}.",
    "It is {a_style} piece with {a_tempo} tempo, {a_lead} and {drums}, in {key}.",
)

SHORT = {
    "style": (
        (
            "What style is this music?",
            "Which style is it?",
            "What kind of music is this?",
            "What is the genre of this piece?",
            "Name the style of this piece.",
            "What would you call this style?",
            "What is the style of the music?",
            "Which genre do you hear?",
        ),
        (
            "{style}",
            "It is {kind}.",
            "This is {kind}.",
            "The style is {style}.",
            "I hear {kind}.",
            "This piece is {kind}.",
        ),
    ),
    "lead": (
        (
            "Which instrument plays the melody?",
            "What is the lead instrument?",
            "Which instrument leads?",
            "What instrument is in front?",
            "Who plays the melody?",
            "Name the lead instrument.",
            "On which instrument is the tune played?",
            "What instrument carries the melody?",
        ),
        (
            "{lead}",
            "The {lead}.",
            "It is {a_lead}.",
            "The {lead} plays the melody.",
            "The lead instrument is the {lead}.",
            "I hear {a_lead}.",
        ),
    ),
    "tempo": (
        (
            "What is the tempo?",
            "How quick is this music?",
            "What tempo does it have?",
            "At what tempo is it played?",
            "What would you call the tempo?",
            "Name the tempo of this piece.",
            "What is the speed of the music?",
            "What is the pace?",
        ),
        (
            "{tempo}",
            "It is {tempo}.",
            "The tempo is {tempo}.",
            "It has {a_tempo} tempo.",
            "The music is {tempo}.",
            "The pace is {tempo}.",
        ),
    ),
    "mode": (
        (
            "What is the mode?",
            "Which mode is it in?",
            "Is it in major or minor?",
            "Is the music major or minor?",
            "Is this piece in a major or a minor key?",
            "Name the mode of this piece.",
            "Does it sound major or minor?",
            "What mode do you hear?",
        ),
        (
            "{mode}",
            "It is {mode}.",
            "The mode is {mode}.",
            "It is in {mode}.",
            "The music is {mode}.",
            "It sounds {mode}.",
        ),
    ),
    "key": (
        (
            "What is the key?",
            "Which key is it in?",
            "What key is this music in?",
            "In which key is this piece?",
            "Name the key of this piece.",
            "What is the key of the music?",
            "What key do you hear?",
            "In what key does it play?",
        ),
        (
            "{key}",
            "It is in {key}.",
            "The key is {key}.",
            "The music is in {key}.",
            "This is {key}.",
            "I hear {key}.",
        ),
    ),
    "drums": (
        (
            "Are there drums?",
            "Do you hear drums?",
            "Is anyone playing the drums?",
            "Does this music have drums?",
            "Can you hear any drums?",
            "Drums or no drums?",
            "Is there a drum part?",
            "Are drums playing?",
        ),
        (
            "{yes}, there are {drums}.",
            "{yes}, I hear {drums}.",
            "{yes}, it has {drums}.",
            "There are {drums}.",
            "I hear {drums}.",
            "The piece has {drums}.",
        ),
    ),
}

# Within a theme, any question may get any of the answers.
LONG = (
    (
        (
            "Describe this music.",
            "Describe the music in detail.",
            "What do you hear?",
            "Tell me about this piece.",
            "What is happening in this music?",
        ),
        (
            "This is {a_style} piece in {key}. The {lead} plays the melody and there "
            "are {drums}. The tempo is {tempo}. {trait}",
            "The music is {kind}, with {a_tempo} tempo. It is in {key}. The {lead} "
            "leads, with {drums}. It sounds {mood}.",
            "I hear {a_tempo} {style} piece. The {lead} carries the melody in {key}. "
            "There are {drums}. {trait}",
        ),
    ),
    (
        (
            "What is the mood of this music?",
            "How does this music feel?",
            "What feeling does it give?",
            "Why does it sound as it does?",
        ),
        (
            "It sounds {mood}. The mode is {mode} and the tempo is {tempo}.",
            "The mood is {mood}, because it is {tempo} and in {mode}. The {lead} sings "
            "the melody.",
            "It feels {mood}. That comes from the {mode} key and the {tempo} tempo.",
        ),
    ),
    (
        (
            "How do you know the style?",
            "What makes the style clear?",
            "Tell me about the style and the rhythm.",
            "What is typical of this style here?",
        ),
        (
            "It is {kind}. {trait} The tempo is {tempo} and there are {drums}.",
            "The style is {style}. {trait} It is played with {drums}.",
            "I hear {kind}. {trait} The pace is {tempo}.",
        ),
    ),
    (
        (
            "Which instruments play here?",
            "Tell me about the instruments.",
            "Who is playing in this piece?",
            "What is the sound of the band?",
        ),
        (
            "The {lead} plays the melody. A bass and chords go with it. There are "
            "{drums}.",
            "The lead instrument is the {lead}. Below it are a bass and chords, with "
            "{drums}. {trait}",
            "I hear {a_lead} in front, then a bass and chords. There are {drums}.",
        ),
    ),
    (
        (
            "Tell me about the harmony.",
            "What can you say about key and mode?",
            "How would you describe the harmony?",
            "Where is the home of this music?",
        ),
        (
            "The piece is in {key}. The mode is {mode}, so it sounds {color}.",
            "The key is {key}. The chords come home to its first note. It sounds "
            "{color}.",
            "It is in {key}. The {lead} melody keeps to that key.",
        ),
    ),
)

TRAITS = {
    "rock": "Strong electric chords drive it.",
    "jazz": "The bass walks and the rhythm swings.",
    "waltz": "Each bar has three beats.",
    "march": "The bass and the chords take turns, left and right.",
    "ballad": "Soft broken chords carry it.",
    "techno": "Electronic sounds repeat a short pattern.",
    "reggae": "The chords fall between the beats.",
}
# Styles that are also the name of a kind of piece take an article.
PIECES = ("waltz", "march", "ballad")
MOODS = {
    ("slow", "major"): "calm and warm",
    ("medium", "major"): "friendly and happy",
    ("fast", "major"): "joyful and lively",
    ("slow", "minor"): "sad and quiet",
    ("medium", "minor"): "serious and thoughtful",
    ("fast", "minor"): "tense and restless",
}
COLORS = {"major": "bright", "minor": "dark"}


def caption(piece: Piece, rng: np.random.Generator) -> str:
    """One sentence of at most 22 words that names the value of every attribute."""
    return _fill(CAPTIONS[rng.integers(len(CAPTIONS))], piece)


def short(piece: Piece, rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """(question, answer, attribute, value) for each attribute; 8 words at most."""
    rows = []
    for attribute, value in piece.labels().items():
        asked, answers = SHORT[attribute]
        question = asked[rng.integers(len(asked))]
        answer = _fill(answers[rng.integers(len(answers))], piece)
        rows.append((question, answer, attribute, value))
    return rows


def long(piece: Piece, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(question, answer) on each theme in random order; answers of 2 to 4 sentences."""
    rows = []
    for theme in rng.permutation(len(LONG)):
        asked, answers = LONG[theme]
        question = asked[rng.integers(len(asked))]
        rows.append((question, _fill(answers[rng.integers(len(answers))], piece)))
    return rows


def _fill(template: str, piece: Piece) -> str:
    """A template with the piece's words in its fields."""
    labels = piece.labels()
    words = dict(labels)
    for name, value in labels.items():
        article = "an" if value[0] in "aeiou" else "a"
        words[f"a_{name}"] = f"{article} {value}"
        words[f"A_{name}"] = f"{article.capitalize()} {value}"
    words["kind"] = words["a_style" if piece.style in PIECES else "style"]
    words["yes"] = "Yes" if labels["drums"] == ATTRIBUTES["drums"][0] else "No"
    words["trait"] = TRAITS[piece.style]
    words["mood"] = MOODS[piece.tempo, piece.mode]
    words["color"] = COLORS[piece.mode]
    return template.format(**words)
