"""What the embedded language model learns from: texts, and their tokens."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from musilingo_jax.answering import prompts
from musilingo_jax.corpora import fact_questions, questions, synthetic
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.corpora.synthetic import Piece
from musilingo_jax.pretrained import tokenizer
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.recipes.hints import UNKNOWN
from musilingo_jax.recipes.render import known_of
from musilingo_jax.runtime import cli, storage

MOST_WINDOWS = 8  # audio vectors in one text
# 10 s of music are three windows; other texts have from one to the most.
_USUAL_WINDOWS = 3
_USUAL_SHARE = 0.6
# Of made-up recordings: the probability that a fact is known, and that it is no music.
_KNOWN_SHARE = 0.75
_NO_MUSIC_SHARE = 0.12
# Facts with many values are asked about more often, by so many questions.
_MANY_VALUED = ("key", "beats") * 2
_MANY_VALUED_OF_RECORDINGS = ("key", "beats", "family")


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """A question and an answer about a song.

    Attributes:
      labels: fact → value, for the facts that are known.
      question: "" where the answer is a caption.
      answer: to the question.
      asked: the facts that the text is about.
    """

    labels: dict[str, str]
    question: str
    answer: str
    asked: tuple[str, ...]


def texts(*, pieces: int, recordings: int, seed: int) -> list[LabelledText]:
    """Texts about new pieces, whose score is known, and about made-up recordings."""
    found = []
    total = pieces + recordings
    for index in cli.progress(range(total), total=total, unit="song", label="texts"):
        rng = np.random.default_rng([seed, index])
        if index < pieces:
            found += of_piece(synthetic.compose(rng, duration=1.0), rng)
        else:
            found += of_recording(made_up(rng), rng)
    return found


def of_piece(piece: Piece, rng: np.random.Generator) -> list[LabelledText]:
    """A caption, short and long questions and answers about a composed piece."""
    everything = tuple(ATTRIBUTES)
    labels = known_of(piece)
    found = [LabelledText(labels, "", questions.caption(piece, rng), everything)]
    for question, answer, attribute, _ in questions.short(piece, rng):
        found.append(LabelledText(labels, question, answer, (attribute,)))
    for question, answer in questions.long(piece, rng):
        found.append(LabelledText(labels, question, answer, everything))
    for name in ("beats", "vocals", *_MANY_VALUED):
        question, answer, _ = fact_questions.short(labels, name, rng)
        found.append(LabelledText(labels, question, answer, (name,)))
    return found


def made_up(rng: np.random.Generator) -> dict[str, str]:
    """What may be known of a recording: each fact at random, by itself."""
    sound = "music"
    if rng.random() < _NO_MUSIC_SHARE:
        sound = str(rng.choice([s for s in FACTS["sound"] if s != "music"]))
        return {"sound": sound}
    known = {"sound": sound}
    for name in fact_questions.OF_RECORDINGS:
        if name != "sound" and rng.random() < _KNOWN_SHARE:
            known[name] = str(rng.choice(FACTS[name]))
    if "key" in known:
        known["mode"] = known["key"].split()[-1]
    return known


def of_recording(known: dict[str, str], rng: np.random.Generator) -> list[LabelledText]:
    """A caption, short and long questions and answers about a recording."""
    everything = tuple(known)
    found = [LabelledText(known, "", fact_questions.caption(known, rng), everything)]
    asked_of = (*fact_questions.ASKED_OF_RECORDINGS, *_MANY_VALUED_OF_RECORDINGS)
    for name in asked_of:
        question, answer, _ = fact_questions.short(known, name, rng)
        asked = (name,) if known["sound"] == "music" else ("sound",)
        found.append(LabelledText(known, question, answer, asked))
    for question, answer in fact_questions.long(known, rng):
        found.append(LabelledText(known, question, answer, everything))
    return found


def train_tokenizer(
    found: Sequence[LabelledText], folder: Path, *, tokens: int
) -> Tokenizer:
    """A byte-level BPE with LLaMA's habits, saved to a folder and read from there.

    Every text gets a leading space, as sentencepiece gives it, and `###` is never
    merged with its neighbours.

    Args:
      found: what to learn from.
      folder: gets the files, in the format of the transformers library.
      tokens: size of the vocabulary, special tokens included.
    """
    pairs = tokenizers.Tokenizer(models.BPE())
    pairs.normalizer = normalizers.Prepend(" ")
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("###", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    pairs.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=tokens,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    frame = "###Human: <Audio></Audio> {} ###Assistant: {}###"
    lines = (frame.format(text.question, text.answer) for text in found)
    pairs.train_from_iterator(lines, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    pairs.save(str(folder / tokenizer.LIBRARY))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    path = folder / "tokenizer_config.json"
    storage.write_text(path, json.dumps(config, indent=2) + "\n")
    return tokenizer.load(folder)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Texts as arrays of one length, ready to be drawn from.

    Attributes:
      tokens, audio_slot: as in `Batch`; 0 and -1 after the end.
      lengths: tokens before the padding.
      targets: places of the answer's tokens, which are to be learnt; -1 after them.
      values: the value of every fact, or `UNKNOWN`.
      asked: which facts the text is about.
    """

    tokens: Int[np.ndarray, "texts length"]
    audio_slot: Int[np.ndarray, "texts length"]
    lengths: Int[np.ndarray, " texts"]
    targets: Int[np.ndarray, "texts answer"]
    values: Int[np.ndarray, "texts facts"]
    asked: Bool[np.ndarray, "texts facts"]

    def rows(self, drawn: Int[np.ndarray, " rows"]) -> tuple[np.ndarray, ...]:
        """Some of the texts: the rows of each field, in the order of the fields."""
        return tuple(
            getattr(self, field.name)[drawn] for field in dataclasses.fields(self)
        )


_Row = tuple[prompts.Example, LabelledText]


def pools(
    found: Sequence[LabelledText],
    tokenizer: Tokenizer,
    prompt_of: Mapping[bool, prompts.PromptConfig],
    *,
    short_length: int,
    long_length: int,
    seed: int,
) -> tuple[Pool, Pool, int]:
    """Encodes texts, and sorts them into two lengths.

    Args:
      found: what to encode.
      tokenizer: with what.
      prompt_of: the prompt of texts without a question (False) and with one (True).
      short_length: tokens of a text of the first pool.
      long_length: tokens of a text of the second pool.
      seed: of how many windows of audio each text has.

    Returns:
      The short texts, the long texts, and how many fit neither length.
    """
    rng = np.random.default_rng([seed, 1])
    rows: tuple[list[_Row], list[_Row]] = ([], [])
    left_out = 0
    for text in cli.progress(found, total=len(found), unit="text", label="tokens"):
        usual = rng.random() < _USUAL_SHARE
        windows = _USUAL_WINDOWS if usual else int(rng.integers(1, MOST_WINDOWS + 1))
        example = prompts.encode(
            tokenizer,
            prompt_of[bool(text.question)],
            text.question,
            text.answer,
            windows,
        )
        size = len(example.tokens)
        fits = [size <= short_length, size <= long_length]
        if any(fits):
            rows[fits.index(True)].append((example, text))
        else:
            left_out += 1
    return _stack(rows[0], short_length), _stack(rows[1], long_length), left_out


def _stack(rows: list[_Row], length: int) -> Pool:
    shape = (len(rows), length)
    tokens, audio_slot = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    places = [np.flatnonzero(example.target_mask) for example, _ in rows]
    most = max(map(len, places), default=0)
    targets = np.full((len(rows), most), -1, np.int32)
    for row, (example, _) in enumerate(rows):
        size = len(example.tokens)
        tokens[row, :size] = example.tokens
        audio_slot[row, :size] = example.audio_slot
        targets[row, : len(places[row])] = places[row]
    by_fact = (len(rows), len(FACTS))  # Also where there are no rows.
    values = [
        [
            FACTS[name].index(text.labels[name]) if name in text.labels else UNKNOWN
            for name in FACTS
        ]
        for _, text in rows
    ]
    asked = [[name in text.asked for name in FACTS] for _, text in rows]
    return Pool(
        tokens=tokens,
        audio_slot=audio_slot,
        lengths=np.array([len(example.tokens) for example, _ in rows], np.int32),
        targets=targets,
        values=np.array(values, np.int32).reshape(by_fact),
        asked=np.array(asked, bool).reshape(by_fact),
    )
