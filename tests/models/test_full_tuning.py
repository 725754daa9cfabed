"""Full tuning: the gradients of all layers, their sharding, and their rounding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from helpers.quick_jit import quick_jit
from helpers.transformers_models import tiny_llama

from musilingo_jax.models import llama as llamas
from musilingo_jax.models.answer_loss import Batch, answer_loss
from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.models.heard import BEGIN, END, WORD
from musilingo_jax.models.parts import Parts, divided, joined
from musilingo_jax.pretrained import module_writer, weights
from musilingo_jax.runtime.sharding import make_mesh, shardings

pytestmark = pytest.mark.medium

TOLERANCE = 1e-4
WIDTH_IN, WINDOWS, WORDS = 6, 3, 7
REMATS = ("everything", "nothing")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A LLaMA of the transformers library, and the same one here with a bridge."""
    folder = tmp_path_factory.mktemp("llama")
    theirs = tiny_llama()
    theirs.save_pretrained(folder)
    llama = weights.load_language_model(
        folder, dtype="float32", quantization="", mesh=None
    )
    layers, ends = divided(llama)
    bridge = Frames(WIDTH_IN, llama.config.width, rngs=nnx.Rngs(1))
    return theirs, Parts(bridge=bridge, llama=layers), Parts(llama=ends)


def batch_of(rows=1):
    """Rows of a word, audio between its marks, and words, of which 4 are told."""
    rng = np.random.default_rng(0)
    time = 1 + WINDOWS + 2 + WORDS
    tokens = rng.integers(1, 50, (rows, time)).astype(np.int32)
    slots = [WORD, BEGIN, *range(WINDOWS), END, *[WORD] * WORDS]
    arrays = {
        "features": rng.normal(size=(rows, WINDOWS, WIDTH_IN)).astype(np.float32),
        "tokens": tokens,
        "audio_slot": np.tile(np.int32(slots), (rows, 1)),
        "segments": np.ones((rows, time), np.int32),
        "positions": np.tile(np.arange(time, dtype=np.int32), (rows, 1)),
        "targets": np.tile(np.arange(time - 4, time, dtype=np.int32), (rows, 1)),
    }
    return Batch(**{name: jnp.asarray(array) for name, array in arrays.items()})


def gradient_of(learning, frozen, batch, remat):
    def loss(learning, frozen, batch):
        return answer_loss(learning, frozen, batch, remat=remat)[0]

    return quick_jit(jax.value_and_grad(loss))(learning, frozen, batch)


def theirs_of(theirs, bridge, batch):
    """The loss and all gradients, by the transformers library."""
    kernel, bias, start, end = (
        torch.tensor(np.array(each[...]), requires_grad=True)
        for each in (
            bridge.projection.kernel,
            bridge.projection.bias,
            bridge.start,
            bridge.end,
        )
    )
    tokens = torch.tensor(np.array(batch.tokens)).long()
    words = theirs.model.embed_tokens(tokens).detach()
    audio = torch.tensor(np.array(batch.features)) @ kernel + bias
    heard = torch.cat([start[None, None], audio, end[None, None]], dim=1)
    embeds = torch.cat([words[:, :1], heard, words[:, 1 + heard.shape[1] :]], dim=1)
    theirs.zero_grad()
    logits = theirs(inputs_embeds=embeds).logits
    chances = torch.log_softmax(logits, dim=-1)
    places = np.array(batch.targets)[0].tolist()
    loss = -sum(chances[0, t - 1, tokens[0, t]] for t in places)
    loss.backward()
    found = {name: p.grad for name, p in theirs.named_parameters()}
    return loss.item(), found, {"kernel": kernel.grad, "start": start.grad}


@pytest.mark.parametrize("remat", REMATS)
def test_gradients_of_all_layers_are_those_of_torch(models, remat):
    theirs, learning, frozen = models
    batch = batch_of()
    expected, wanted, of_bridge = theirs_of(theirs, learning.bridge, batch)
    loss, gradient = gradient_of(learning, frozen, batch, remat)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    # As a whole model, so that it is written under the released names.
    whole = joined(gradient.llama, jax.tree.map(jnp.zeros_like, frozen.llama))
    found = dict(module_writer.written(whole, llamas.NAMES, dtype="float32"))
    compared = 0
    for name, ours in found.items():
        if "embed_tokens" in name or "lm_head" in name:
            continue
        theirs_here = wanted[name].numpy()
        assert np.abs(ours - theirs_here).max() <= TOLERANCE * np.abs(theirs_here).max()
        compared += 1
    assert compared == 2 * 9 + 1
    for name, ours in (
        ("kernel", gradient.bridge.projection.kernel),
        ("start", gradient.bridge.start),
    ):
        theirs_here = of_bridge[name].numpy()
        difference = np.abs(np.asarray(ours[...]) - theirs_here).max()
        assert difference <= TOLERANCE * np.abs(theirs_here).max()


def test_eight_devices_have_the_gradient_of_one(models):
    _, learning, frozen = models
    batch = batch_of(rows=8)
    loss, one = gradient_of(learning, frozen, batch, "nothing")
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    spread = jax.device_put(learning, shardings(learning, mesh))
    rest = jax.device_put(frozen, shardings(frozen, mesh))
    kernel = spread.llama.layers.gate.kernel[...]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    many_loss, many = gradient_of(spread, rest, batch, "nothing")
    np.testing.assert_allclose(many_loss, loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, rtol=0)


def test_the_ends_do_not_learn_and_no_part_is_in_both(models):
    _, learning, frozen = models
    llama = joined(learning.llama, frozen.llama)
    ends = llama.config.vocab * llama.config.width * 2
    assert sum(leaf.size for leaf in jax.tree.leaves(frozen.llama)) == ends
    learnt = sum(leaf.size for leaf in jax.tree.leaves(learning.llama))
    assert learnt == sum(leaf.size for leaf in jax.tree.leaves(llama)) - ends
    with pytest.raises(ValueError, match="both learns and is frozen"):
        learning.and_those_of(dataclasses.replace(frozen, llama=learning.llama))


def test_products_are_those_of_rounded_weights_and_small_steps_are_kept(models):
    """A bfloat16 model forgets steps that float32 masters add up."""
    _, learning, frozen = models
    narrow = Parts(llama=jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen.llama))
    batch = batch_of()
    loss, gradient = gradient_of(learning, narrow, batch, "nothing")
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.ndim > 2 else x, learning.llama
    )
    same, _ = gradient_of(
        dataclasses.replace(learning, llama=rounded), narrow, batch, "nothing"
    )
    assert float(loss) == float(same)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))

    def rounded_kernel(parts):
        kernel = parts.llama.layers.up.kernel[...]
        return np.asarray(kernel.astype(jnp.bfloat16), np.float32)

    # Steps of a sixteenth of the distance of neighbours.
    optimiser = optax.adamw(5e-6, b2=0.999, weight_decay=0.0)
    moments, after = optimiser.init(learning), learning
    for count in range(1, 41):
        change, moments = optimiser.update(gradient, moments, after)
        after = optax.apply_updates(after, change)
        if count == 1:
            moved = rounded_kernel(after) != rounded_kernel(learning)
            assert moved.mean() < 0.25
    moved = rounded_kernel(after) != rounded_kernel(learning)
    assert moved.mean() > 0.75
