"""Captions for benchmarks, with noise in place of their music."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from musilingo_jax.answering import released
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora import corpus
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.pretrained import tokenizer, weights
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.training.examples import Examples

WIDTH = 1024  # MERT-330M's.
WINDOWS = 3  # Of the 10 s of a MusicCaps clip.
MAX_TOKENS = 512
# The text settings of the original, with the question of its second stage.
PROMPTS = {
    1: PromptConfig(template="", instruction="", end_sign="\n", max_answer_tokens=32),
    2: released.PROMPT,
}
QUESTIONS = {1: "", 2: "Please give a caption to the music."}


def load(path: str | None, stage: int) -> list[Record]:
    """The training captions of a `musiccaps-public.csv`, or the embedded corpus's."""
    if path is None:
        texts = [
            r.answer for r in corpus.load("musilingo-tiny-corpus") if not r.question
        ]
    else:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts = [r["caption"] for r in rows if r["is_audioset_eval"] != "True"]
    question = QUESTIONS[stage]
    return [
        Record(Path(f"{i}.wav"), str(i), question, text, "train", None, None)
        for i, text in enumerate(texts)
    ]


def load_tokenizer(folder: str | None) -> Tokenizer:
    """The tokenizer in a folder, or the embedded language model's."""
    if folder is None:
        return weights.load_tokenizer("musilingo-tiny")
    return tokenizer.load(Path(folder))


def noise() -> SimpleNamespace:
    """Stands in for a feature cache: the same noise for every clip."""
    made = np.random.default_rng(0).normal(size=(WINDOWS, WIDTH)).astype(np.float32)
    return SimpleNamespace(features=lambda clip: made, windows=lambda clip: WINDOWS)


def examples(path: str | None, tokenizer_folder: str | None, stage: int) -> Examples:
    """The captions of `load`, tokenised as for a stage."""
    return Examples(
        load(path, stage),
        noise(),
        load_tokenizer(tokenizer_folder),
        PROMPTS[stage],
        max_tokens=MAX_TOKENS,
        max_windows=WINDOWS,
        bridge=LinearBridge,
    )
