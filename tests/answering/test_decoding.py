"""Tokens against `transformers`', with a cache and without, in rows taken anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from helpers import tiny_model as tiny

from musilingo_jax.answering import decoding
from musilingo_jax.answering.answer import waiting_of
from musilingo_jax.answering.continuous_batching import (
    ContinuousBatch,
    PromptTokens,
    QueuedPrompt,
)
from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
)
from musilingo_jax.answering.stop_texts import stops_of
from musilingo_jax.pretrained import weights

# Threads that wait for each other are slow where cores are shared.
torch.set_num_threads(1)
GREEDY = Choice((), Greedy())


def prompts(count: int) -> list[QueuedPrompt]:
    return waiting_of(tiny.speaker(), tiny.PROMPT, tiny.requests(count), tiny.GREEDY)


def say(llama, waiting, stops, *, rows=4, most=12, choice=GREEDY) -> list[list[int]]:
    conversation = ContinuousBatch(
        tiny.adapter(llama.config.width),
        llama,
        waiting,
        stops,
        choice,
        rows=rows,
        most=most,
        mesh=None,
    )
    said = {index: tokens.tolist() for index, tokens in conversation.answers()}
    return [said[index] for index in range(len(waiting))]


@pytest.mark.parametrize("shape", ["LLAMA_1", "LLAMA_3"])
def test_greedy_equals_transformers(tmp_path, shape):
    llama = tiny.llama(shape)
    weights.save_language_model(llama, tmp_path, dtype=np.float32)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    asked = tiny.requests(4)
    asked += [(features[:0], question) for features, question in asked[:2]]
    waiting = waiting_of(tiny.speaker(), tiny.PROMPT, asked, tiny.GREEDY)
    vocab = llama.config.vocab
    free = say(llama, waiting, tiny.ending_with([], vocab))
    assert len({token for tokens in free for token in tokens}) > 8
    # Let tokens that rows really say be the ends, so that rows end apart.
    ends = [free[1][5], free[2][2]]
    tongue = Choice((RepetitionPenalty(1.3), MinimumLength(3)), Greedy())
    for choice, changes in (
        (GREEDY, {}),
        (tongue, {"repetition_penalty": 1.3, "min_new_tokens": 3}),
    ):
        said = say(llama, waiting, tiny.ending_with(ends, vocab), choice=choice)
        for prompt, tokens in zip(waiting, said, strict=True):
            embeddings = tiny.embeddings(llama, prompt.text)[None]
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
    llama, waiting = tiny.llama(), prompts(3)
    said = say(llama, waiting, tiny.ending_with([], llama.config.vocab), most=8)
    # One pass over prompt and answer: what is likeliest after each token said?
    texts = [prompt.text for prompt in waiting]
    time = 8 + max(len(text.tokens) for text in texts)
    read = np.zeros((3, time, 32), np.float32)
    for row, (text, tokens) in enumerate(zip(texts, said, strict=True)):
        whole = PromptTokens(
            text.features, (*text.tokens, *tokens), (*text.audio_slot, *[-1] * 8)
        )
        read[row, : len(whole.tokens)] = tiny.embeddings(llama, whole)

    @jax.jit
    def likeliest(read):
        hidden, _ = llama(
            read,
            positions=jnp.broadcast_to(jnp.arange(time), (3, time)),
            attend=jnp.broadcast_to(jnp.tri(time, dtype=bool), (3, time, time)),
            cache=None,
            remat=False,
        )
        return jnp.argmax(llama.logits(hidden), axis=-1)

    found = np.asarray(likeliest(read))
    for row, text in enumerate(texts):
        last = len(text.tokens) - 1
        assert found[row, last : last + 8].tolist() == said[row]


@pytest.mark.parametrize("rows", [1, 16])
def test_rows_that_are_taken_anew_say_what_they_would_alone(rows):
    """Answers of 1 to 12 tokens; of 3 rows, each is taken four or five times."""
    llama, waiting = tiny.llama(), prompts(14)
    vocab = llama.config.vocab
    ends = np.random.default_rng(4).permutation(vocab)[: vocab // 12].tolist()
    stops = tiny.ending_with(ends, vocab)
    said = say(llama, waiting, stops, rows=rows)
    assert said == say(llama, waiting, stops, rows=3)
    assert len({len(tokens) for tokens in said}) > 4


def test_few_programs_are_compiled():
    """Whatever is asked: one to speak, and one to read for each length of a wave."""
    llama, vocab = tiny.llama(), tiny.llama().config.vocab
    programs = (decoding.admit, decoding.read_prefixes, decoding.speak)
    for program in programs:
        program.clear_cache()
    say(llama, prompts(30), tiny.ending_with([5, 9], vocab), rows=8)
    compiled = [program._cache_size() for program in programs]
    assert compiled[0] <= 3 and compiled[1:] == [1, 1]


def test_a_prefix_is_read_once_for_all_its_questions(monkeypatch):
    llama = tiny.llama()
    (features, _), *_ = tiny.requests(1)
    asked = [(features, f"How {number}?") for number in range(9)]
    asked += [(features + 1, "How?")]
    waiting = waiting_of(tiny.speaker(), tiny.PROMPT, asked, tiny.GREEDY)
    assert len({prompt.key for prompt in waiting}) == 2
    read = []

    def counted(adapter, llama, bank, prompts, places, *, mesh):
        read.append(np.asarray(prompts.lengths).tolist())
        return decoding.read_prefixes(adapter, llama, bank, prompts, places, mesh=mesh)

    monkeypatch.setattr(
        "musilingo_jax.answering.continuous_batching.read_prefixes", counted
    )
    say(llama, waiting, tiny.ending_with([], llama.config.vocab), rows=2)
    lengths = [prompt.place for prompt in (waiting[0], waiting[9])]
    assert [n for lengths in read for n in lengths if n] == lengths


def test_a_prompt_is_cut_after_its_audio():
    features = np.zeros((2, 4), np.float32)
    prompt = QueuedPrompt(
        0, PromptTokens(features, (1, 5, 0, 0, 6, 7), (-1, -1, 0, 1, -1, -1)), 0
    )
    assert prompt.prefix.tokens == (1, 5, 0, 0) and prompt.rest.tokens == (6, 7)
    caption = QueuedPrompt(0, PromptTokens(features, (1, 0, 0), (-1, 0, 1)), 0)
    assert caption.rest.audio_slot == (1,)
    deaf = QueuedPrompt(0, PromptTokens(features[:0], (1, 5), (-1, -1)), 0)
    assert deaf.prefix.tokens == ()


@dataclasses.dataclass(frozen=True)
class Counted(Greedy):
    """Greedy, and tells how often it was asked."""

    counts: tuple[list[int], ...] = dataclasses.field(hash=False, compare=False)

    def choose(self, scores, keys):
        jax.debug.callback(lambda: self.counts[0].append(1))
        return super().choose(scores, keys)


def test_the_loop_ends_when_all_rows_have():
    waiting = prompts(1)
    said = tiny.tokenizer().encode("ab###cdefg")
    llama = tiny.parrot(said, start=waiting[0].text.tokens[-1])
    counts = []
    stops = stops_of(tiny.tokenizer(), ("###",), llama.config.vocab)
    choice = Choice((), Counted((counts,)))
    assert say(llama, waiting, stops, most=40, choice=choice) == [said[:3]]
    jax.effects_barrier()
    assert len(counts) == 3
