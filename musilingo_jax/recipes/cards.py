"""Model cards: a README.md beside each embedded part, with the numbers of its run."""

from typing import Any

from musilingo_jax.recipes import packages
from musilingo_jax.recipes.config import RecipeConfig
from musilingo_jax.recipes.shipping import MODEL
from musilingo_jax.runtime.storage import write_text

RECIPE = "`make recipe` (numbers in `configs/tiny_from_scratch.py`)"

ENCODER = """\
# {model} / encoder

MERT's architecture at {parameters:,} parameters: 24 kHz waveform → strided convolutions
and 84 constant-Q bins → 25 frames a second → {depth} pre-norm transformer layers of
width {width}. Made by {recipe}.

**Data.** {clips:,} clips of {seconds:g} s, composed by
`musilingo_jax/corpora/synthetic.py` and played by three soundfonts, FluidR3_GM (MIT),
MuseScore_General_Lite (MIT) and sf_GMbank (public domain), which share the parts of a
piece at random; each part with an equaliser of its own, the drums tuned and of any kit,
the whole with random level, equaliser, reverberation and noise. And {excerpts:,}
excerpts of recordings from packages of Debian, listed below, with {no_music} clips of
speech and as many of noise; and {sung:,} excerpts to which a voice sings that a vocoder
has made of speech (`musilingo_jax/recipes/singing.py`), because nearly nobody sings in
these packages. Nothing of the recordings is in these weights' folder; whether weights
inherit a licence from what they learnt from is not settled.

**Training.** *Not* MERT's masked prediction. {start} Linear heads on MusiLingo's own
read-out (the mean over hidden states, and over windows of {window_frames} frames) learn

- of composed clips, from the score: style, lead, tempo, mode, key and drums of the
  clip, and for every frame pitch classes, bass, melody, onsets, beats, strokes and
  instrument families;
- of recordings, from *teachers*: the 100 tags of the two taggers of `musicnn` 0.1.0
  (Pons and Serra 2019; ISC) and the layers below them; in a third of the excerpts,
  which notes sound, by `basic-pitch` 0.4.0 (Bittner et al. 2022; Apache-2.0); how well
  each tempo fits the onsets; and one of these, where a song's onsets agree on it.
  Teachers hear each song at one level; the student hears copies of it at others,
  through codecs, equalised, too loud, with noise, and slowed copies, of which what is
  periodic alone is known.

The heads are not shipped. {steps:,} steps of {batch_size} composed clips and
{recorded_batch_size} excerpts.

**What the heads named** on {held_out} composed clips that were not trained on, share
correct:

| attribute | values | training soundfonts | unseen soundfont |
| --- | --- | --- | --- |
{rows}

**Agreement with the teachers** on packages that nothing was learnt from: over songs,
the correlation of the head's logit of a tag with the tagger's, the mean over 50 tags;
another song's in brackets. {agreement}. Agreement is not truth: what a teacher takes
for a violin, the student does, too.

**Limits.** Most of the recordings are music of games, electronic for the most part:
little jazz, country and singing. The taggers' own mistakes are learnt. It was not made
to tell a singer's sex, a mood beyond calm or energetic, words, or who plays; a tempo
may be half or twice what people tap.

**Packages**, with the licences of their recordings (authors are named in each package's
`copyright`). Learnt from:

{learnt}

Left out, to measure with:

{left_out}
"""

LANGUAGE = """\
# {model} / language model

LLaMA's architecture at {parameters:,} parameters: {depth} layers of width {width}, a
byte-level BPE of {vocab} tokens. Made by {recipe}.

**Data.** {texts:,} captions, questions and answers about composed pieces and made-up
recordings (`musilingo_jax/corpora/questions.py`, `fact_questions.py`). It was trained
on nothing else.

**Training, and what it means for the results.** *The language model was pretrained with
hints in the audio slot*: where the adapter's vectors will stand, it saw noisy, randomly
thinned sums of a code for each value that is known of a song. What is not known
has no code, and the model learnt to say that it can't tell. A large language model
needs no such thing, for its embeddings already mean something; a model of this size
that never saw anything in the slot learns to ignore it. It was not trained on audio.
{steps:,} steps.

**What it reads.** With the sum of the true codes in the slot, the share of short
answers that name the true value, for {read_pieces} new pieces and as many made-up
recordings ("unsure": says that it can't tell what is not known): {reads}."""

TAKEN = """\
# {model} / language model

That of `{taken}`, tokenizer and all, to the last bit: it can say already what is to be
said, and reads the codes of which the new adapter makes sums. Its own card:

---

#{card}"""

ADAPTER = """\
# {model} / adapter

One linear map with bias, {width_in} → {width_out}: all that MusiLingo trains. Made by
{recipe}.

A closed-form start (ridge regression from pooled features to the sum of the codes of
what is known), then `musilingo_jax.train`: {steps1:,} steps on captions and {steps2:,}
on questions about {clips:,} rendered songs, other ones than the encoder's, and, in
equal parts, about recordings. Answers about recordings are *pseudo-labels*: what the
teachers of the encoder's card are sure of (a genre also where it is only the
likeliest), keys where their notes fit one key far better than all others, tempi where a
song's onsets agree. They are asked about seconds near those that the teachers and the
encoder heard, which the encoder knows too well; two slowed copies are asked for their
tempo; rare genres are asked for more often. Nobody has listened.

It belongs to `{model}/encoder` and `{model}/language_model`, whose digests
are in its `config.json`, and to windows of {window_frames} frames. Its accuracy, with
controls and intervals, is in the project's README, with the commands that measure it.
"""

CORPUS = """\
# musilingo-tiny-corpus

{clips} clips of {seconds:g} s (Ogg Vorbis, mono, 24 kHz) and `songs.jsonl`, one line
per caption or question. Composed by `musilingo_jax/corpora/synthetic.py` and played by
the soundfonts FluidR3_GM (MIT, Frank Wen) and MuseScore_General_Lite (MIT, S. Christian
Collins). None of them was used to train the encoder, the language model or the shipped
adapter. Made by {recipe}. In the public domain (CC0).

The format is that of your own songs:

    {{"audio": "clips/00000.ogg", "question": "What is the tempo?", "answer": "It is
    slow.", "split": "train", "attribute": "tempo", "value": "slow"}}

`question` is missing where the answer is a caption; `attribute` and `value` are only
needed where accuracy is to be measured.
"""


def write(recipe: RecipeConfig, log: dict[str, Any]) -> None:
    """Writes the cards of all parts below `recipe.work`.

    Args:
      recipe: the numbers.
      log: what the stages found, as `StageLog.read` returns it.
    """
    texts = {
        "model/encoder": encoder_card(recipe, log["encoder"]),
        "model/language_model": language_card(recipe, log["language"]),
        "model/adapter": adapter_card(recipe),
        "corpus": corpus_card(recipe),
    }
    for folder, text in texts.items():
        write_text(recipe.work / folder / "README.md", text)


def encoder_card(recipe: RecipeConfig, found: dict[str, Any]) -> str:
    """The encoder's card; `found` is what its stage found."""
    rows = "\n".join(
        f"| {name} | {count} | {found['held_out'][name]:.3f} | "
        f"{found['unseen'][name]:.3f} |"
        for name, count in found["values"].items()
    )
    return ENCODER.format(
        model=MODEL,
        recipe=RECIPE,
        parameters=found["parameters"],
        depth=recipe.encoder_model.num_hidden_layers,
        width=recipe.encoder_model.hidden_size,
        clips=recipe.render.clips,
        seconds=recipe.render.seconds,
        held_out=recipe.render.held_out_clips,
        rows=rows,
        window_frames=recipe.encoder.window_frames,
        steps=recipe.encoder.steps,
        batch_size=recipe.encoder.batch_size,
        recorded_batch_size=recipe.encoder.recorded_batch_size,
        excerpts=found["excerpts"],
        no_music=recipe.recordings.no_music,
        sung=found["sung"],
        start=f"It began with the weights of `{recipe.encoder.start}`, whose card says "
        "what these had learnt from."
        if recipe.encoder.start
        else "It began with random numbers.",
        agreement="; ".join(
            f"{tagger} {tags['mean']:.2f} ({tags['shuffled']:.2f})"
            for tagger, tags in found["agreement"].items()
        ),
        learnt=_packages(packages.LEARN),
        left_out=_packages(packages.LEFT_OUT),
    )


def _packages(role: str) -> str:
    """The packages of a role, as a table."""
    rows = [
        f"| {package.name} | {package.version} | {package.licence} |"
        for package in packages.PACKAGES
        if package.role == role
    ]
    head = ["| package | version | licence |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows])


def language_card(recipe: RecipeConfig, found: dict[str, Any]) -> str:
    """The language model's card; `found` is what its stage found."""
    if "taken" in found:
        return TAKEN.format(model=MODEL, taken=found["taken"], card=found["card"])
    return LANGUAGE.format(
        model=MODEL,
        recipe=RECIPE,
        parameters=found["parameters"],
        texts=found["texts"],
        depth=recipe.language_model["num_hidden_layers"],
        width=recipe.language_model["hidden_size"],
        vocab=found["vocab"],
        steps=recipe.language.steps,
        read_pieces=recipe.read_pieces,
        reads=", ".join(f"{name} {x:.3f}" for name, x in found["reads"].items()),
    )


def adapter_card(recipe: RecipeConfig) -> str:
    """The adapter's card."""
    stages = recipe.experiment
    return ADAPTER.format(
        model=MODEL,
        recipe=RECIPE,
        width_in=recipe.encoder_model.hidden_size,
        width_out=recipe.language_model["hidden_size"],
        steps1=stages.stage1.steps,
        steps2=stages.stage2.steps,
        clips=recipe.adapter.clips,
        window_frames=stages.features.window_frames,
    )


def corpus_card(recipe: RecipeConfig) -> str:
    """The embedded corpus's card."""
    return CORPUS.format(
        recipe=RECIPE,
        clips=recipe.corpus.clips,
        seconds=recipe.render.seconds,
    )
