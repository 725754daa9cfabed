"""Questions about songs → answers, for songs and questions in memory."""

import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.beam_search import search_each
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.continuous_batching import ContinuousBatch
from musilingo_jax.answering.decoding import AnswerTokens, TokenRule
from musilingo_jax.answering.padded_prompts import Features, PromptTokens
from musilingo_jax.answering.prompt_queue import QueuedPrompt
from musilingo_jax.answering.prompts import MODEL_END, PromptConfig, encode
from musilingo_jax.answering.stop_texts import ending_tokens, settled, tidy
from musilingo_jax.runtime.errors import UserError

# The pooled features of a song, and a question about it.
Request = tuple[Features, str]


class Answer(NamedTuple):
    """An answer: its text, and whether it was cut after `max_new_tokens`."""

    text: str
    is_cut: bool


# Tokens between two pieces of an answer that is streamed.
STEPS = 2


def check_question(prompt: PromptConfig, question: str) -> None:
    """Checks that a question does not end the conversation that it is put into.

    Raises:
      UserError: it contains the prompt's end sign.
    """
    sign = prompt.end_sign
    if prompt.template and sign != MODEL_END and sign in question:
        raise UserError(
            f"the question {question[:60]!r} contains {sign!r}, with which "
            "every turn of the conversation ends: ask without it"
        )


def answer(
    answerer: Answerer,
    prompt: PromptConfig,
    requests: Sequence[Request],
    config: GenerateConfig,
) -> list[str]:
    """Answers questions about songs.

    Args:
      answerer: the model.
      prompt: the conversation around each question.
      requests: songs and questions.
      config: how to decode.

    Returns:
      The answers, in the order of the requests.

    Raises:
      UserError: as in `answer_each`.
    """
    answers = dict(answer_each(answerer, prompt, requests, config))
    return [answers[index].text for index in range(len(requests))]


def answer_each(
    answerer: Answerer,
    prompt: PromptConfig,
    requests: Sequence[Request],
    config: GenerateConfig,
) -> Iterator[tuple[int, Answer]]:
    """Answers as `answer` does, but yields (index, answer) as soon as one is finished.

    An answer depends only on its own request and on the seed: the order, the batch size
    and the other requests do not change it. A request with features of shape (0, width)
    is asked without any audio in its prompt.

    Raises:
      UserError: at once, if a prompt leaves no room for an answer; while answering, if
        the device has too little memory.
    """
    prompts = queued_prompts(answerer, prompt, requests, config)
    texts = stop_texts_of(prompt, config)

    # Apart, so that the errors above are raised before the first answer is asked for.
    def answers() -> Iterator[tuple[int, Answer]]:
        with enough_memory(_batch(config)):
            for index, tokens in answer_tokens(answerer, prompts, texts, config):
                yield index, finished_answer(answerer, tokens, texts, config)

    return answers()


def stream(
    answerer: Answerer,
    prompt: PromptConfig,
    request: Request,
    config: GenerateConfig,
) -> Generator[str, None, bool]:
    """The answer to one request, in pieces, while it is generated.

    The pieces, joined, are what `answer` returns. No letter is cut in two, and what may
    become a stop text is held back until it is known not to be one. A beam search knows
    its answer at the end only and so yields a single piece.

    Returns:
      `Answer.is_cut`, as the value of a `yield from`.

    Raises:
      UserError: as in `answer_each`, but when the first piece is asked for.
    """
    if config.beams > 1:
        ((_, whole),) = answer_each(answerer, prompt, [request], config)
        yield whole.text
        return whole.is_cut
    prompts = queued_prompts(answerer, prompt, [request], config)
    texts = stop_texts_of(prompt, config)
    with enough_memory(_batch(config)):
        job = _continuous_batch(answerer, prompts, texts, config)
        tokens = yield from pieces_of(answerer, job.snapshots(STEPS), texts)
    return finished_answer(answerer, tokens, texts, config).is_cut


def queued_prompts(
    answerer: Answerer,
    prompt: PromptConfig,
    requests: Sequence[Request],
    config: GenerateConfig,
) -> list[QueuedPrompt]:
    """The requests as prompts.

    The seed of a prompt is made from its question and features, not from its place
    among the requests.

    Raises:
      UserError: a prompt leaves no room for an answer.
    """
    prompts = []
    for index, (features, question) in enumerate(requests):
        tokens = prompt_tokens(answerer, prompt, features, question)
        seed = seed_of(config, features, question)
        prompts.append(QueuedPrompt(index, tokens, seed))
    longest = max((len(queued.prompt.tokens) for queued in prompts), default=0)
    config.check_room(longest, answerer.context, answerer.llama.config.vocab)
    return prompts


def prompt_tokens(
    answerer: Answerer,
    prompt: PromptConfig,
    features: Features,
    question: str,
    earlier: Sequence[tuple[str, str]] = (),
) -> PromptTokens:
    """The prompt of a question about a song.

    Args:
      answerer: the model.
      prompt: the conversation around the question.
      features: of the song.
      question: what is asked.
      earlier: questions about the song before this one, and their answers.

    Raises:
      UserError: as in `prompts.encode` and `PromptConfig.check_place`.
    """
    features = np.ascontiguousarray(features, np.float32)
    bridge = answerer.bridge
    prompt.check_place("prompt", splices=bridge.splices)
    example = encode(
        answerer.tokenizer,
        prompt,
        question,
        None,
        len(features) if bridge.splices else 0,
        earlier=earlier,
        marks=bridge.marks,
    )
    return PromptTokens(features, tuple(example.tokens), tuple(example.audio_slot))


def seed_of(
    config: GenerateConfig,
    features: Features,
    question: str,
    earlier: Sequence[tuple[str, str]] = (),
) -> int:
    """What the draws of an answer are derived from: all that it is an answer to."""
    turns = "".join(f"{asked}\n{said}\n" for asked, said in earlier)
    identity = f"{config.seed}\n{turns}{question}\n".encode()
    heard = np.ascontiguousarray(features, np.float32).tobytes()
    return zlib.crc32(identity + heard)


def finished_answer(
    answerer: Answerer,
    tokens: AnswerTokens,
    texts: tuple[str, ...],
    config: GenerateConfig,
) -> Answer:
    """The answer that tokens spell.

    It is cut if there was no room for another token and nothing that ends an answer.
    """
    text = answerer.tokenizer.decode(tokens)
    ends = ending_tokens(answerer.tokenizer, texts)
    has_ended = tokens[-1:] and tokens[-1] in ends
    has_ended = has_ended or any(stop in text for stop in texts)
    is_full = len(tokens) >= config.max_new_tokens
    return Answer(tidy(text, texts), is_cut=is_full and not has_ended)


def stop_texts_of(prompt: PromptConfig, config: GenerateConfig) -> tuple[str, ...]:
    """All texts that end an answer: the prompt's own, and those of the config."""
    sign = () if prompt.end_sign == MODEL_END else (prompt.end_sign,)
    return (*sign, *config.stop)


def answer_tokens(
    answerer: Answerer,
    prompts: Sequence[QueuedPrompt],
    texts: tuple[str, ...],
    config: GenerateConfig,
) -> Iterator[tuple[int, AnswerTokens]]:
    """Yields the index and the tokens of each answer, as they are finished."""
    if not prompts:
        return
    if config.beams > 1:
        at_first_beam = config.stopping == "first_beam"
        yield from search_each(
            answerer.reader,
            TokenRule(config.choice, answerer.stops(() if at_first_beam else texts)),
            prompts,
            texts=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            beams=config.beams,
            length_penalty=config.length_penalty,
            first_beam=answerer.stops(texts) if at_first_beam else None,
        )
    else:
        yield from _continuous_batch(answerer, prompts, texts, config).answers()


def _continuous_batch(
    answerer: Answerer,
    prompts: Sequence[QueuedPrompt],
    texts: tuple[str, ...],
    config: GenerateConfig,
) -> ContinuousBatch:
    return ContinuousBatch(
        answerer.reader,
        TokenRule(config.choice, answerer.stops(texts)),
        prompts,
        rows=config.batch_size,
        max_new_tokens=config.max_new_tokens,
    )


def pieces_of(
    answerer: Answerer, snapshots: Iterable[AnswerTokens], texts: tuple[str, ...]
) -> Generator[str, None, AnswerTokens]:
    """The pieces of an answer, each what a longer beginning of it adds.

    Args:
      answerer: the model.
      snapshots: the answer's tokens, more each time; the last time all of them.
      texts: what ends an answer.

    Returns:
      All tokens of the answer.
    """
    tokenizer = answerer.tokenizer
    shown = 0
    tokens: AnswerTokens = []
    for tokens in snapshots:
        sure = settled(tokenizer.spell(tokens), texts)
        if sure[shown:]:
            yield sure[shown:]
        shown = len(sure)
    if rest := tidy(tokenizer.decode(tokens), texts)[shown:]:
        yield rest
    return tokens


def _batch(config: GenerateConfig) -> str:
    """The settings that say how much memory answers take."""
    return (
        f"generate.batch_size = {config.batch_size}, generate.beams = {config.beams} "
        f"and generate.max_new_tokens = {config.max_new_tokens}"
    )


@contextmanager
def enough_memory(batch: str) -> Iterator[None]:
    """Turns JAX's error about memory into one that names what to lower.

    Args:
      batch: what takes the memory.

    Raises:
      UserError: the device has too little.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the device has too little memory for {batch}: lower one of them"
        ) from error
