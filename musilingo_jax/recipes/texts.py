"""What the embedded language model learns from: texts, and their tokens."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from musilingo_jax.answering import prompts
from musilingo_jax.corpora import questions, synthetic
from musilingo_jax.pretrained import tokenizer
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime import cli


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """One thing said about one piece; `asked` are the attributes it is about."""

    labels: dict[str, str]
    question: str
    answer: str
    asked: tuple[str, ...]


def texts(*, pieces: int, seed: int) -> list[LabelledText]:
    """Captions, short and long questions and answers about so many pieces."""
    found = []
    everything = tuple(synthetic.ATTRIBUTES)
    for index in cli.progress(range(pieces), total=pieces, unit="piece", label="texts"):
        rng = np.random.default_rng([seed, index])
        piece = synthetic.compose(rng, duration=1.0)
        labels = piece.labels()
        found.append(
            LabelledText(labels, "", questions.caption(piece, rng), everything)
        )
        for question, said, attribute, _ in questions.short(piece, rng):
            found.append(LabelledText(labels, question, said, (attribute,)))
        for question, said in questions.long(piece, rng):
            found.append(LabelledText(labels, question, said, everything))
    return found


def train_tokenizer(
    found: list[LabelledText], folder: Path, *, tokens: int
) -> Tokenizer:
    """Byte-level BPE with LLaMA's habits, saved to a folder and read from there.

    Every piece of text gets a leading space, as sentencepiece gives it, and `###` is
    never merged with its neighbours.

    Args:
      found: what to learn from.
      folder: gets the files, as the transformers library reads them too.
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
    path.write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer.load(folder)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Texts as arrays of one length, ready to be drawn from.

    Attributes:
      tokens, audio_slot: int32 [texts, length], as in `Batch`; 0 and -1 after the end.
      lengths: int32 [texts], tokens before the padding.
      values: int32 [texts, attributes], the piece's value of every attribute.
      asked: bool [texts, attributes].
    """

    tokens: np.ndarray
    audio_slot: np.ndarray
    lengths: np.ndarray
    values: np.ndarray
    asked: np.ndarray


def pools(
    found: list[LabelledText],
    tokenizer: Tokenizer,
    prompt_of: dict[bool, prompts.PromptConfig],
    *,
    short_length: int,
    long_length: int,
    seed: int,
) -> tuple[Pool, Pool, int]:
    """Encodes the texts; returns those of each length and how many fitted neither.

    Args:
      found: what to encode.
      tokenizer: with what.
      prompt_of: the prompt of texts without a question (False) and with one (True).
      short_length, long_length: of the two pools, in tokens.
      seed: of how many windows of audio each text has.
    """
    rng = np.random.default_rng([seed, 1])
    rows: tuple[list, list] = ([], [])
    left_out = 0
    for text in cli.progress(found, total=len(found), unit="text", label="tokens"):
        # 10 s of music are three windows; a longer song has more, a snippet fewer.
        windows = 3 if rng.random() < 0.6 else int(rng.integers(1, 9))
        example = prompts.encode(
            tokenizer,
            prompt_of[bool(text.question)],
            text.question,
            text.answer,
            windows,
        )
        size = len(example.tokens)
        fits = [size <= short_length, size <= long_length]
        if not any(fits):
            left_out += 1
            continue
        values = [
            synthetic.ATTRIBUTES[name].index(text.labels[name])
            for name in synthetic.ATTRIBUTES
        ]
        asked = [name in text.asked for name in synthetic.ATTRIBUTES]
        rows[fits.index(True)].append((example, size, values, asked))
    return (
        _stack(rows[0], short_length),
        _stack(rows[1], long_length),
        left_out,
    )


def _stack(rows: list, length: int) -> Pool:
    tokens = np.zeros((len(rows), length), np.int32)
    audio_slot = np.full((len(rows), length), -1, np.int32)
    for row, (example, size, _, _) in enumerate(rows):
        tokens[row, :size] = example.tokens
        audio_slot[row, :size] = example.audio_slot
    return Pool(
        tokens,
        audio_slot,
        np.array([size for _, size, _, _ in rows], np.int32),
        np.array([values for _, _, values, _ in rows], np.int32),
        np.array([asked for _, _, _, asked in rows], bool),
    )
