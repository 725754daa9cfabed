"""How likely a model finds given answers, without generating any.

An option is read behind its prompt, end sign included, and costs what the loss of
training says (`models/answer_loss.py`). What all options begin with belongs to the
prompt, which is read once for all of them:

    prompt     … Which genre? ###Assistant: It is       read once, kept in a cache
    options    rock. ###      hip hop. ###     jazz. ### read behind copies of it
    nats       0.9 + 0.1      2.1 + 0.4 + 0.1  1.6 + 0.1
    per token  0.50           0.87             0.85

Options differ in length, and a sum over more tokens is larger. So options are compared
by their mean per token, the end sign among the tokens.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from musilingo_jax.answering.answer import enough_memory
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.padded_prompts import (
    LENGTH_MULTIPLE,
    Features,
    PaddedPrompts,
    PromptTokens,
    fill_up,
    pad,
    round_up,
    windows_for,
)
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.signals import check_signals

# Options are padded to a multiple of this, so that few programs are compiled.
_OPTION_MULTIPLE = 8


class OptionRequest(NamedTuple):
    """A question about a song, and the answers that it may have.

    Attributes:
      features: pooled features of the song.
      question: what is asked.
      options: at least two, of which none is another.
    """

    features: Features
    question: str
    options: tuple[str, ...]


class OptionScore(NamedTuple):
    """What an option costs.

    Attributes:
      nats: summed cross entropy of its tokens behind those that all options share.
      tokens: how many they are, the end sign's included.
    """

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens


class _Option(NamedTuple):
    """An option: the row that holds its prompt, and its tokens."""

    row: int
    tokens: tuple[int, ...]


def score_options(
    answerer: Answerer,
    prompt: PromptConfig,
    requests: Sequence[OptionRequest],
    *,
    rows: int,
) -> list[list[OptionScore]]:
    """What the options of each request cost.

    Args:
      answerer: the model.
      prompt: the conversation around each question.
      requests: questions with their options.
      rows: prompts, and options, that are read at the same time; changes the speed, not
        the scores.

    Returns:
      For each request the scores of its options, in their order.

    Raises:
      UserError: a prompt leaves no room for an option, or the device has too little
        memory.
    """
    if not requests:
        return []
    encoded = [_encode(answerer, prompt, request) for request in requests]
    tokens = [len(option) for _, options in encoded for option in options]
    longest = max(len(asked.tokens) for asked, _ in encoded)
    if longest + max(tokens) > answerer.context:
        raise UserError(
            f"a question of up to {longest} tokens leaves no room for an option of up "
            f"to {max(tokens)}: the language model reads {answerer.context} in all; "
            "give shorter options"
        )
    reader, scores = answerer.reader, []
    rows = reader.row_shares * -(-rows // reader.row_shares)
    sizes = {
        "windows": windows_for([asked for asked, _ in encoded]),
        "time": round_up(max(tokens), _OPTION_MULTIPLE),
    }
    with enough_memory(f"{rows} options at the same time"):
        for some in _groups(encoded, rows):
            scores += _scores(reader, some, rows=rows, **sizes)
    return scores


def shares(scores: Sequence[OptionScore]) -> Float[np.ndarray, " options"]:
    """How options share out 1 by their means: the softmax of −nats per token."""
    means = -np.array([score.mean for score in scores])
    likely = np.exp(means - means.max())
    return likely / likely.sum()


_Encoded = tuple[PromptTokens, list[tuple[int, ...]]]


def _encode(
    answerer: Answerer, prompt: PromptConfig, request: OptionRequest
) -> _Encoded:
    """The prompt of a request with what its options share, and the rest of each.

    Raises:
      UserError: an option is longer than any answer in training, or is another one.
    """
    features = np.ascontiguousarray(request.features, np.float32)
    bridge, asked = answerer.bridge, request.question
    prompt.check_place("prompt", splices=bridge.splices)
    windows = len(features) if bridge.splices else 0
    examples = [
        encode(answerer.tokenizer, prompt, asked, text, windows, marks=bridge.marks)
        for text in request.options
    ]
    for text, example in zip(request.options, examples, strict=True):
        if example.cut:
            raise UserError(
                f"the option {text[:60]!r} is longer than any answer in training: give "
                "a shorter one"
            )
    first = min(examples, key=lambda example: len(example.tokens))
    # Of equal options nothing would be left.
    columns = zip(*(example.tokens for example in examples), strict=False)
    shared = next((n for n, each in enumerate(columns) if len({*each}) > 1), None)
    if shared is None:
        raise UserError(
            f"the options of {asked!r} are the same to the language model, or one is "
            "the beginning of another: leave one of them out"
        )
    before = tuple(first.tokens[:shared]), tuple(first.audio_slot[:shared])
    options = [tuple(example.tokens[shared:]) for example in examples]
    return PromptTokens(features, *before), options


def _groups(encoded: Sequence[_Encoded], rows: int) -> Iterator[list[_Encoded]]:
    for start in range(0, len(encoded), rows):
        yield list(encoded[start : start + rows])


def _scores(
    reader: PromptReader, some: list[_Encoded], *, rows: int, windows: int, time: int
) -> list[list[OptionScore]]:
    """The scores of requests that fit into one batch of prompts."""
    prompts = pad(
        [asked for asked, _ in some],
        rows=rows,
        multiple=LENGTH_MULTIPLE,
        windows=windows,
        mesh=reader.mesh,
    )
    slots = prompts.tokens.shape[1] + time
    cache = empty_cache(reader, rows=rows, slots=slots, spread=True)
    hidden, cache = _read(reader, prompts, cache)
    options = [
        _Option(row, tokens) for row, (_, each) in enumerate(some) for tokens in each
    ]
    nats: list[float] = []
    for start in range(0, len(options), rows):
        check_signals()
        part = options[start : start + rows]
        tokens = np.zeros((rows, time), np.int32)
        for place, option in enumerate(part):
            tokens[place, : len(option.tokens)] = option.tokens
        which = fill_up([option.row for option in part], rows, 0)
        lengths = fill_up([len(option.tokens) for option in part], rows, 0)
        arrays = reader.replicate((which, tokens, lengths))
        found = _nats(reader, hidden, cache, *arrays)
        nats += np.asarray(found)[: len(part)].tolist()
    each = iter(nats)
    return [
        [
            OptionScore(value, len(tokens))
            for tokens, value in zip(own, itertools.islice(each, len(own)), strict=True)
        ]
        for _, own in some
    ]


@functools.partial(jax.jit, donate_argnames="cache")
def _read(
    reader: PromptReader, prompts: PaddedPrompts, cache: KVCache
) -> tuple[Float[Array, "rows width"], KVCache]:
    """Reads prompts; the hidden state of each one's last token, and the cache."""
    hidden, cache = reader.read(prompts, cache)
    return hidden, reader.place(cache, spread=False)


@jax.jit
def _nats(
    reader: PromptReader,
    hidden: Float[Array, "rows width"],
    cache: KVCache,
    which: Int[Array, " rows"],
    tokens: Int[Array, "rows time"],
    lengths: Int[Array, " rows"],
) -> Float[Array, " rows"]:
    """The summed cross entropy of options behind their prompts.

    An option's first token is predicted from the prompt's last one, and so on:

        read            :   rock  ###
        predicted       rock  ###

    Args:
      reader: the model.
      hidden: state of the last token of each prompt.
      cache: the prompts.
      which: the prompt of each option.
      tokens: of each option, padded on the right.
      lengths: how many they are; 0 for a row without an option.
    """
    llama = reader.llama
    held = reader.place(cache.take(which), spread=True)
    read, _ = llama(llama.embed(tokens), held, lengths=lengths, tuning=reader.tuning)
    before = jnp.concatenate([hidden[which][:, None], read[:, :-1]], axis=1)
    logits = llama.logits(before)
    score = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    lost = jax.nn.logsumexp(logits, axis=-1) - score
    used = jnp.arange(tokens.shape[1]) < lengths[:, None]
    return jnp.sum(jnp.where(used, lost, 0.0), axis=1)
