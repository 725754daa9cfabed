"""Text of a model with MU-LLaMA's bridge is that of PyTorch, in any company."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import tiny_model as tiny
from helpers import torch_mu_llama
from helpers.gated_model import BRIDGE, SMALL, in_torch, model_parts

from musilingo_jax.answering.beam_search import search_each
from musilingo_jax.answering.continuous_batching import ContinuousBatch
from musilingo_jax.answering.decoding import TokenRule
from musilingo_jax.answering.padded_prompts import PromptTokens
from musilingo_jax.answering.prompt_queue import QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.sampling import Choice, Greedy
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import unstacked
from musilingo_jax.runtime.sharding import make_mesh, shardings

pytestmark = pytest.mark.medium
slow = pytest.mark.slow

MOST = 8
ENDS = tuple(range(3, 61, 7))
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def parts():
    """With gates so wide open that the song decides what is said."""
    found = model_parts()
    bridge = jax.tree.map(jnp.copy, found.bridge)
    bridge.gates[...] = 5 * bridge.gates[...]
    return dataclasses.replace(found, bridge=bridge)


def songs(count):
    return 2 * np.random.default_rng(6).normal(size=(count, 5, 10)).astype(np.float32)


def prompts(features, *, alike=False):
    """Questions of several lengths; the same one about all songs if `alike`."""
    made = np.random.default_rng(7)
    texts = [made.integers(0, SMALL.vocab, 5 + i * 4 % 7) for i in range(len(features))]
    return [
        QueuedPrompt(index, PromptTokens(song, tokens, (-1,) * len(tokens)), 0)
        for index, song in enumerate(features)
        for tokens in [tuple(texts[0 if alike else index].tolist())]
    ]


def reader_of(parts, mesh=None):
    """Ready to decode; on all devices of a mesh if there is one."""
    tuning = parts.tuning
    if mesh is not None:
        parts = jax.device_put(parts, shardings(parts, mesh))
        tuning = parts.tuning
    llama = unstacked(jax.tree.map(jnp.copy, parts.llama))
    return PromptReader(parts.bridge, llama, mesh, tuning.unstacked())


RULE = TokenRule(Choice((), Greedy()), tiny.ending_with(list(ENDS), SMALL.vocab))


def greedy(reader, waiting, *, rows=4):
    job = ContinuousBatch(reader, RULE, waiting, rows=rows, max_new_tokens=MOST)
    found = dict(job.answers())
    return [found[index] for index in range(len(waiting))]


class InTorch:
    """The model in PyTorch, for one text at a time."""

    def __init__(self, parts):
        self.weights = in_torch(parts)

    @torch.no_grad()
    def logits(self, features, texts):
        """Scores of the next token of texts of one length about one song."""
        audio = torch_mu_llama.hear(
            self.weights, torch.tensor(features)[None], BRIDGE.blocks
        )
        return torch_mu_llama.logits(
            self.weights,
            torch.tensor(texts),
            audio.expand(len(texts), -1),
            depth=SMALL.depth,
            heads=SMALL.heads,
            query_layers=BRIDGE.query_layers,
        )[:, -1]

    def greedy(self, prompt):
        text, answer = list(prompt.tokens), []
        while len(answer) < MOST and (not answer or answer[-1] not in ENDS):
            answer.append(int(self.logits(prompt.features, [text + answer]).argmax()))
        return answer

    def beams(self, prompt, count, penalty):
        """The best answer of a plain beam search, written without any tensor trick."""
        text, living, answers = list(prompt.tokens), [(0.0, [])], []
        for step in range(1, MOST + 1):
            scores = self.logits(prompt.features, [text + t for _, t in living])
            scores = scores.log_softmax(-1) + torch.tensor([[s] for s, _ in living])
            best = scores.flatten().topk(2 * count)
            candidates = [
                (float(score), [*living[place // SMALL.vocab][1], place % SMALL.vocab])
                for score, place in zip(best.values, best.indices.tolist(), strict=True)
            ]
            for score, tokens in candidates[:count]:
                if tokens[-1] in ENDS:
                    answers.append((score / step**penalty, tokens))
            living = [(s, t) for s, t in candidates if t[-1] not in ENDS][:count]
            answers = sorted(answers, reverse=True)[:count]
            full = len(answers) == count
            if full and living[0][0] / step**penalty <= answers[-1][0]:
                break
        answers += [(score / MOST**penalty, t) for score, t in living if len(t) == MOST]
        return max(answers)[1]


@pytest.fixture(scope="module")
def theirs(parts):
    return InTorch(parts)


def test_greedy_text_is_that_of_torch(parts, theirs):
    """Six songs in two rows, which get free at other times and are refilled."""
    waiting = prompts(songs(6))
    found = greedy(reader_of(parts), waiting, rows=2)
    assert found == [theirs.greedy(one.prompt) for one in waiting]
    assert len({len(tokens) for tokens in found}) > 1


def test_beam_search_is_that_of_torch(parts, theirs):
    waiting = prompts(songs(4))
    found = dict(
        search_each(
            reader_of(parts),
            RULE,
            waiting,
            texts=6,  # Two songs at a time.
            max_new_tokens=MOST,
            beams=3,
            length_penalty=1.0,
            first_beam=None,
        )
    )
    expected = [theirs.beams(one.prompt, 3, 1.0) for one in waiting]
    assert [found[index] for index in range(4)] == expected
    assert expected != [theirs.greedy(one.prompt) for one in waiting]


@pytest.mark.parametrize(
    "int8",
    [pytest.param(False, id="float32"), pytest.param(True, id="int8", marks=slow)],
)
def test_two_songs_in_one_batch_are_each_alone(parts, int8):
    """One question about several songs: only the song tells the answers apart."""
    if int8:
        llama = quantize_language_model(parts.llama)
        parts = dataclasses.replace(parts, llama=llama)
    reader, waiting = reader_of(parts), prompts(songs(5), alike=True)
    together = greedy(reader, waiting, rows=4)
    assert len({tuple(tokens) for tokens in together}) > 2
    again = [dataclasses.replace(one, index=0) for one in waiting]
    assert together == [greedy(reader, [one], rows=4)[0] for one in again]


@slow
def test_eight_devices_say_the_same(parts):
    waiting = prompts(songs(5), alike=True)
    expected = greedy(reader_of(parts), waiting)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert greedy(reader_of(parts, mesh), waiting, rows=8) == expected
