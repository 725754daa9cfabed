"""Tokens against those of `transformers`, with a cache and without, in shared rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from helpers import tiny_model as tiny

from musilingo_jax.answering import decoding, prefix_bank
from musilingo_jax.answering.answer import queued_prompts
from musilingo_jax.answering.continuous_batching import ContinuousBatch
from musilingo_jax.answering.decoding import TokenRule
from musilingo_jax.answering.padded_prompts import PromptTokens
from musilingo_jax.answering.prompt_queue import PromptQueue, QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
)
from musilingo_jax.answering.stop_texts import stops_of
from musilingo_jax.pretrained import weights

pytestmark = pytest.mark.medium

# Threads that wait for each other are slow where cores are shared.
torch.set_num_threads(1)
GREEDY = Choice((), Greedy())


def queued(requests) -> list[QueuedPrompt]:
    return queued_prompts(tiny.answerer(), tiny.PROMPT, requests, tiny.GREEDY)


def prompts(count: int, *, alike: bool = True) -> list[QueuedPrompt]:
    return queued(tiny.requests(count, alike=alike))


def generate(
    llama, waiting, stops, *, rows=4, max_new_tokens=12, choice=GREEDY
) -> list[list[int]]:
    """The answers' tokens, in the order of the prompts."""
    job = ContinuousBatch(
        PromptReader(tiny.adapter(llama.config.width), tiny.decoding(llama), mesh=None),
        TokenRule(choice, stops),
        waiting,
        rows=rows,
        max_new_tokens=max_new_tokens,
    )
    answers = dict(job.answers())
    return [answers[index] for index in range(len(waiting))]


@pytest.mark.quick("LLAMA_3")
@pytest.mark.parametrize("shape", ["LLAMA_1", "LLAMA_3"])
def test_greedy_equals_transformers(tmp_path, shape):
    llama = tiny.llama(shape)
    weights.save_language_model(llama, tmp_path, dtype=np.float32)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    asked = tiny.requests(4, alike=False)
    # Without audio, too.
    waiting = queued(
        asked + [(features[:0], question) for features, question in asked[::3]]
    )
    vocab = llama.config.vocab
    free = generate(llama, waiting, tiny.ending_with([], vocab))
    assert len({token for tokens in free for token in tokens}) > 8
    # Let tokens that rows really generate be the ends, so that rows end apart.
    ends = [free[1][5], free[2][2]]
    processed = Choice((RepetitionPenalty(1.3), MinimumLength(3)), Greedy())
    for choice, changes in (
        (GREEDY, {}),
        (processed, {"repetition_penalty": 1.3, "min_new_tokens": 3}),
    ):
        ours = generate(llama, waiting, tiny.ending_with(ends, vocab), choice=choice)
        for prompt, tokens in zip(waiting, ours, strict=True):
            embeddings = tiny.embeddings(llama, prompt.prompt)[None]
            with torch.no_grad():
                expected = theirs.generate(
                    inputs_embeds=torch.from_numpy(embeddings),
                    attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64),
                    do_sample=False,
                    max_new_tokens=12,
                    eos_token_id=ends,
                    pad_token_id=0,
                    **changes,
                )[0].tolist()
            assert tokens == expected


def test_cached_equals_uncached():
    llama, waiting = tiny.llama(), prompts(4)
    answers = generate(llama, waiting, tiny.ending_with([], llama.config.vocab))
    # One pass over prompt and answer: which token is likeliest after each of them?
    texts = [prompt.prompt for prompt in waiting]
    time = 12 + max(len(text.tokens) for text in texts)
    read = np.zeros((4, time, 32), np.float32)
    for row, (text, tokens) in enumerate(zip(texts, answers, strict=True)):
        whole = PromptTokens(
            text.features, (*text.tokens, *tokens), (*text.audio_slot, *[-1] * 12)
        )
        read[row, : len(whole.tokens)] = tiny.embeddings(llama, whole)

    @jax.jit
    def likeliest(read):
        hidden = llama(
            read,
            positions=jnp.broadcast_to(jnp.arange(time), (4, time)),
            segments=jnp.ones((4, time), jnp.int32),
            remat="everything",
        )
        return jnp.argmax(llama.logits(hidden), axis=-1)

    found = np.asarray(likeliest(read))
    for row, text in enumerate(texts):
        last = len(text.tokens) - 1
        assert found[row, last : last + 12].tolist() == answers[row]


@pytest.mark.parametrize("rows", [1, 16])
def test_rows_that_are_shared_answer_as_if_each_prompt_had_its_own(rows):
    """Answers of 1 to 12 tokens; each of 4 rows is given to three or four prompts."""
    llama, waiting = tiny.llama(), prompts(14)
    vocab = llama.config.vocab
    ends = np.random.default_rng(4).permutation(vocab)[: vocab // 12].tolist()
    stops = tiny.ending_with(ends, vocab)
    answers = generate(llama, waiting, stops, rows=rows)
    assert answers == generate(llama, waiting, stops)
    assert len({len(tokens) for tokens in answers}) > 4


def test_a_prefix_is_read_once_for_all_its_questions(monkeypatch):
    llama = tiny.llama()
    (features, question), *_ = tiny.requests(1)
    asked = [(features, f"{question} {number}?") for number in range(9)]
    asked += [(features + 1, question)]
    waiting = queued(asked)
    assert len({prompt.prefix_key for prompt in waiting}) == 2
    read = []

    def counted(reader, bank, prefixes, places):
        read.append(np.asarray(prefixes.lengths).tolist())
        return decoding.read_prefixes(reader, bank, prefixes, places)

    monkeypatch.setattr(prefix_bank, "read_prefixes", counted)
    generate(llama, waiting, tiny.ending_with([], llama.config.vocab))
    lengths = [prompt.prefix_length for prompt in (waiting[0], waiting[9])]
    assert [n for lengths in read for n in lengths if n] == lengths


def test_a_prompt_is_cut_after_its_audio():
    features = np.zeros((2, 4), np.float32)
    prompt = QueuedPrompt(
        0, PromptTokens(features, (1, 5, 0, 0, 6, 7), (-1, -1, 0, 1, -1, -1)), 0
    )
    assert prompt.prefix.tokens == (1, 5, 0, 0)
    caption = QueuedPrompt(0, PromptTokens(features, (1, 0, 0), (-1, 0, 1)), 0)
    assert caption.prefix.audio_slot == (-1, 0)
    without = QueuedPrompt(0, PromptTokens(features[:0], (1, 5), (-1, -1)), 0)
    assert without.prefix.tokens == ()


def test_the_queue_keeps_prompts_with_one_prefix_together():
    clips = [np.full((1, 4), number, np.float32) for number in range(3)]
    waiting = [
        QueuedPrompt(index, PromptTokens(clips[clip], (1, 0, 5), (-1, 0, -1)), 0)
        for index, clip in enumerate([0, 1, 0, 2, 1])
    ]
    queue = PromptQueue(waiting)
    assert [prompt.index for prompt in queue.next(9)] == [0, 2, 1, 4, 3]
    keys = [waiting[index].prefix_key for index in (0, 1, 3)]
    assert list(queue.prefixes(besides=(), count=9)) == keys
    assert list(queue.prefixes(besides=keys[:1], count=1)) == [keys[1]]
    queue.remove(3)
    assert [prompt.index for prompt in queue.next(1)] == [4] and len(queue) == 2
    assert [queue.needs(key) for key in keys] == [False, True, True]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Counted(Greedy):
    """Greedy, and counts how often it was asked."""

    counts: tuple[list[int], ...] = dataclasses.field(hash=False, compare=False)

    def choose(self, scores, keys):
        jax.debug.callback(lambda: self.counts[0].append(1))
        return super().choose(scores, keys)


def test_the_loop_ends_when_all_rows_have():
    waiting = prompts(1)
    script = tiny.tokenizer().encode("ab###cdefg")
    llama = tiny.parrot(script)
    counts = []
    stops = stops_of(tiny.tokenizer(), ("###",), llama.config.vocab)
    choice = Choice((), Counted((counts,)))
    answers = generate(llama, waiting, stops, max_new_tokens=40, choice=choice)
    assert answers == [script[:3]]
    jax.effects_barrier()
    assert len(counts) == 3


def test_few_programs_are_compiled():
    """Whatever is asked: one to decode, and one to read for each length of a wave."""
    llama, vocab = tiny.llama(), tiny.llama().config.vocab
    programs = (decoding.admit, decoding.read_prefixes, decoding.decode)
    for program in programs:
        program.clear_cache()
    waiting = prompts(30, alike=False)
    generate(llama, waiting, tiny.ending_with([5, 9], vocab), rows=8)
    compiled = [program._cache_size() for program in programs]
    assert compiled[0] <= 3 and compiled[1:] == [1, 1]
