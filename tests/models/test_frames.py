"""LLark's bridge: frames between two vectors that are learnt."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.quick_jit import quick_jit
from helpers.small_run import LANGUAGE_MODEL, small_tokenizer

from musilingo_jax.answering import prompts
from musilingo_jax.answering.released import PROMPT
from musilingo_jax.models.answer_loss import answer_loss, splice
from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.models.heard import BEGIN, END, WORD
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.training.packing import RowShape, fill

WIDTH = 6
loss_of = quick_jit(answer_loss, static_argnames="remat")


@pytest.fixture(scope="module")
def parts():
    config = LlamaConfig.from_dict(
        LANGUAGE_MODEL | {"vocab_size": small_tokenizer().size}
    )
    llama = Llama(config, rngs=nnx.Rngs(0))
    return Parts(bridge=Frames(WIDTH, config.width, rngs=nnx.Rngs(1))), Parts(
        llama=llama
    )


def clip(seed, windows):
    rng = np.random.default_rng(seed)
    example = prompts.encode(
        small_tokenizer(), PROMPT, "How fast is it?", "Very fast!", windows, marks=True
    )
    return rng.normal(size=(windows, WIDTH)).astype(np.float32), example


def batch_of(*rows):
    shape = RowShape(
        length=max(sum(len(e.tokens) for _, e in row) for row in rows),
        windows=max(sum(len(f) for f, _ in row) for row in rows),
        answers=max(sum(sum(e.target_mask) for _, e in row) for row in rows),
    )
    return fill(rows, shape, WIDTH)


def test_marks_stand_around_the_frames(parts):
    bridge = parts[0].bridge
    features, example = clip(0, 3)
    slots = np.array(example.audio_slot)
    at = np.flatnonzero(slots != WORD)
    assert slots[at].tolist() == [BEGIN, 0, 1, 2, END]
    text = jnp.zeros((1, len(slots), bridge.width))
    heard = bridge(features[None], None).spliced
    spliced = np.asarray(splice(text, heard, slots[None]))[0]
    frames = np.asarray(bridge.projection(features))
    assert np.array_equal(spliced[at[0]], bridge.start[...])
    np.testing.assert_array_equal(spliced[at[1:4]], frames)
    assert np.array_equal(spliced[at[4]], bridge.end[...])
    assert not spliced[slots == WORD].any()


def test_clips_that_share_a_row_have_the_loss_that_they_have_apart(parts):
    one, other = clip(1, 4), clip(2, 2)
    together = loss_of(*parts, batch_of([one, other]), remat="everything")
    apart = [
        loss_of(*parts, batch_of([each]), remat="everything") for each in (one, other)
    ]
    np.testing.assert_allclose(
        together[0], sum(float(loss) for loss, _ in apart), rtol=1e-5
    )
    assert int(together[1]) == sum(int(count) for _, count in apart)


@pytest.mark.parametrize("name", ["start", "end"])
def test_the_loss_depends_on_both_marks(parts, name):
    bridge, frozen = parts
    moved = nnx.clone(bridge.bridge)
    mark = getattr(moved, name)
    mark[...] = mark[...] + 1.0
    batch = batch_of([clip(3, 2)])
    before = loss_of(bridge, frozen, batch, remat="everything")[0]
    after = loss_of(Parts(bridge=moved), frozen, batch, remat="everything")[0]
    assert abs(float(before) - float(after)) > 1e-3
