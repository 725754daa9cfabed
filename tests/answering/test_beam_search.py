"""Beam search against that of `transformers`."""

import numpy as np
import pytest
import torch
import transformers
from helpers import tiny_model as tiny

from musilingo_jax.answering.answer import queued_prompts
from musilingo_jax.answering.beam_search import search_each
from musilingo_jax.answering.decoding import TokenRule
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
)
from musilingo_jax.pretrained import weights

# Threads that wait for each other are slow where cores are shared.
torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["LLAMA_1", "LLAMA_3"])
def models(request, tmp_path_factory):
    """Ours and theirs, of the same weights."""
    folder = tmp_path_factory.mktemp(request.param)
    llama = tiny.llama(request.param)
    weights.save_language_model(llama, folder, dtype=np.float32)
    return llama, transformers.LlamaForCausalLM.from_pretrained(folder).eval()


def prompts():
    """Five, of similar length, two of them without audio."""
    asked = tiny.requests(3)
    asked += [(features[:0], question) for features, question in asked[1:]]
    return queued_prompts(tiny.answerer(), tiny.PROMPT, asked, tiny.GREEDY)


def search(llama, processors, *, beams: int, length_penalty: float):
    """Index and tokens of each answer, all prompts at a time.

    A twelfth of all tokens end an answer, so that beams end at different lengths.
    """
    vocab = llama.config.vocab
    return search_each(
        PromptReader(tiny.adapter(32), tiny.decoding(llama), mesh=None),
        TokenRule(Choice(processors, Greedy()), tiny.ending_with(ends(vocab), vocab)),
        prompts(),
        texts=5 * beams,
        max_new_tokens=10,
        beams=beams,
        length_penalty=length_penalty,
    )


def ends(vocab: int) -> list[int]:
    return np.random.default_rng(2).permutation(vocab)[: vocab // 12].tolist()


@pytest.mark.parametrize(
    "processors",
    [(), (RepetitionPenalty(1.5), MinimumLength(5))],
    ids=["plain", "processed"],
)
def test_beams_equal_those_of_transformers(models, processors):
    """With audio and without, whether short answers are favoured or long ones."""
    llama, theirs = models
    changes = {"repetition_penalty": 1.5, "min_new_tokens": 5} if processors else {}
    lengths = set()
    for length_penalty in (1.0, 0.0, 2.0, -1.0):
        found = list(search(llama, processors, beams=3, length_penalty=length_penalty))
        assert sorted(index for index, _ in found) == list(range(5))
        for index, tokens in found:
            embeddings = tiny.embeddings(llama, prompts()[index].prompt)[None]
            with torch.no_grad():
                expected = theirs.generate(
                    inputs_embeds=torch.from_numpy(embeddings),
                    attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64),
                    do_sample=False,
                    num_beams=3,
                    length_penalty=length_penalty,
                    early_stopping=False,
                    max_new_tokens=10,
                    eos_token_id=ends(llama.config.vocab),
                    pad_token_id=0,
                    **changes,
                )[0].tolist()
            assert tokens == expected
            lengths.add(len(tokens))
    assert len(lengths) > 1


def test_a_search_finds_likelier_answers_than_the_likeliest_tokens():
    """Else it could be greedy, and all the same."""
    llama = tiny.llama()
    one, three = (
        dict(search(llama, (), beams=beams, length_penalty=0.0)) for beams in (1, 3)
    )
    assert one != three
