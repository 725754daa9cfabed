"""Beam search against `transformers`'."""

import numpy as np
import pytest
import torch
import transformers
from helpers import tiny_model as tiny

from musilingo_jax.answering.answer import waiting_of
from musilingo_jax.answering.beam_search import search_each
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


@pytest.mark.parametrize(
    "processors",
    [(), (RepetitionPenalty(1.5), MinimumLength(5))],
    ids=["plain", "processed"],
)
def test_beams_equal_those_of_transformers(models, processors):
    """With audio and without, whether short answers or long ones gain."""
    llama, theirs = models
    vocab = llama.config.vocab
    # So many end an answer that beams end at different lengths.
    ends = np.random.default_rng(2).permutation(vocab)[: vocab // 12].tolist()
    asked = tiny.requests(3)
    asked += [(features[:0], question) for features, question in asked[:2]]
    prompts = waiting_of(tiny.speaker(), tiny.PROMPT, asked, tiny.GREEDY)
    changes = {"repetition_penalty": 1.5, "min_new_tokens": 5} if processors else {}
    lengths = set()
    for length_penalty in (1.0, 0.0, 2.0, -1.0):
        found = list(
            search_each(
                tiny.adapter(32),
                llama,
                prompts,
                tiny.ending_with(ends, vocab),
                Choice(processors, Greedy()),
                rows=5 * 3,
                most=10,
                beams=3,
                length_penalty=length_penalty,
                mesh=None,
            )
        )
        assert sorted(index for index, _ in found) == list(range(5))
        for index, tokens in found:
            embeddings = tiny.embeddings(llama, prompts[index].text)[None]
            with torch.no_grad():
                expected = theirs.generate(
                    inputs_embeds=torch.from_numpy(embeddings),
                    attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64),
                    do_sample=False,
                    num_beams=3,
                    length_penalty=length_penalty,
                    early_stopping=False,
                    max_new_tokens=10,
                    eos_token_id=ends,
                    pad_token_id=0,
                    **changes,
                )[0].tolist()
            assert tokens.tolist() == expected
            lengths.add(len(tokens))
    assert len(lengths) > 1


def test_a_search_finds_likelier_answers_than_the_likeliest_tokens():
    """Else it could be greedy, and all the same."""
    asked = tiny.requests(4)
    prompts = waiting_of(tiny.speaker(), tiny.PROMPT, asked, tiny.GREEDY)
    llama = tiny.llama()
    said = [
        dict(
            search_each(
                tiny.adapter(32),
                llama,
                prompts,
                tiny.ending_with([2], llama.config.vocab),
                Choice((), Greedy()),
                rows=4 * beams,
                most=8,
                beams=beams,
                length_penalty=0.0,
                mesh=None,
            )
        )
        for beams in (1, 4)
    ]
    different = [not np.array_equal(said[0][i], said[1][i]) for i in range(4)]
    assert any(different)
