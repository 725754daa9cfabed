"""Beam search against that of `transformers`."""

import jax
import jax.numpy as jnp
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
    Sample,
)
from musilingo_jax.pretrained import weights

pytestmark = pytest.mark.medium

MOST = 10

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


def search(
    llama, processors, *, beams, length_penalty, method=None, first_beam=None, texts=5
):
    """Index and tokens of each answer, of `texts` prompts at a time.

    A twelfth of all tokens end an answer, so that beams end at different lengths.
    """
    vocab = llama.config.vocab
    choice = Choice(processors, method or Greedy())
    return search_each(
        PromptReader(tiny.adapter(32), tiny.decoding(llama), mesh=None),
        TokenRule(choice, tiny.ending_with(ends(vocab), vocab)),
        prompts(),
        texts=texts * beams,
        max_new_tokens=MOST,
        beams=beams,
        length_penalty=length_penalty,
        first_beam=tiny.ending_with(first_beam, vocab) if first_beam else None,
    )


def ends(vocab: int) -> list[int]:
    return np.random.default_rng(2).permutation(vocab)[: vocab // 12].tolist()


@pytest.mark.quick("LLAMA_3-processed", "LLAMA_1-plain")
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
                    max_new_tokens=MOST,
                    eos_token_id=ends(llama.config.vocab),
                    pad_token_id=0,
                    **changes,
                )[0].tolist()
            assert tokens == expected
            lengths.add(len(tokens))
    assert len(lengths) > 1


@pytest.mark.slow
def test_a_search_finds_likelier_answers_than_the_likeliest_tokens():
    """Else it could be greedy, and all the same."""
    llama = tiny.llama()
    one, three = (
        dict(search(llama, (), beams=beams, length_penalty=0.0)) for beams in (1, 3)
    )
    assert one != three


def log_probabilities(theirs, prompt, tokens):
    """Of the next token, after a prompt's embeddings and some tokens of an answer."""
    words = theirs.get_input_embeddings()(torch.tensor(tokens, dtype=torch.int64))
    with torch.no_grad():
        read = torch.cat([torch.from_numpy(prompt), words])[None]
        return theirs(inputs_embeds=read).logits[0, -1].log_softmax(-1).numpy()


def drawn_beams(theirs, prompt, seed, ends, first_ends, *, beams, length_penalty):
    """`beam_sample` of `transformers` 4.28 for one prompt, with lists of texts.

    With the stopping rule of MusiLingo's demo if `first_ends` is not empty.
    """
    texts, answers = [([], 0.0)] * beams, []
    method = SAMPLE
    for step in range(MOST):
        scores = np.stack(
            [log_probabilities(theirs, prompt, tokens) + s for tokens, s in texts]
        )
        scores = np.asarray(method.keep(jnp.asarray(scores)))
        key = jax.random.fold_in(jax.random.key(seed), step)
        noisy = (scores + np.asarray(jax.random.gumbel(key, scores.shape))).ravel()
        drawn = np.argsort(-noisy)[: 2 * beams]
        ranked = sorted(drawn, key=lambda index: -scores.ravel()[index])
        following = []
        for rank, index in enumerate(ranked):
            parent, token = divmod(int(index), scores.shape[1])
            text = [*texts[parent][0], token]
            score = float(scores[parent, token])
            if token in ends or step + 1 == MOST:
                if rank < beams:
                    answers.append((score / len(text) ** length_penalty, text))
            elif len(following) < beams:
                following.append((text, score))
        texts = following
        answers = sorted(answers, key=lambda answer: -answer[0])[:beams]
        if step + 1 == MOST:
            break
        worst = answers[-1][0] if len(answers) == beams else -1e9
        if texts[0][1] / (step + 1) ** length_penalty <= worst:
            break
        if texts[0][0][-1] in first_ends:
            answers += [(s / (len(t) + 1) ** length_penalty, t) for t, s in texts]
            break
    return max(answers, key=lambda answer: answer[0])[1]


SAMPLE = Sample(temperature=1.25, top_k=7, top_p=0.95, min_p=0.0)


@pytest.mark.quick("LLAMA_3-True--1.0", "LLAMA_1-False-0.0")
@pytest.mark.parametrize("length_penalty", [0.0, -1.0])
@pytest.mark.parametrize("at_first_beam", [False, True])
def test_drawn_beams_equal_those_of_transformers_4_28(
    models, at_first_beam, length_penalty
):
    llama, theirs = models
    vocab = llama.config.vocab
    first = np.random.default_rng(3).permutation(vocab)[: vocab // 4].tolist()
    first = first if at_first_beam else []
    options = {"beams": 3, "length_penalty": length_penalty}
    found = search(llama, (), method=SAMPLE, first_beam=first, **options)
    lengths = set()
    for index, tokens in found:
        prompt = prompts()[index]
        expected = drawn_beams(
            theirs,
            tiny.embeddings(llama, prompt.prompt),
            prompt.seed,
            ends(vocab),
            first,
            **options,
        )
        assert tokens == expected
        lengths.add(len(tokens))
    assert len(lengths) > 1
    # An answer does not depend on what is searched beside it.
    alone = search(llama, (), method=SAMPLE, first_beam=first, texts=1, **options)
    assert dict(alone) == dict(
        search(llama, (), method=SAMPLE, first_beam=first, **options)
    )
