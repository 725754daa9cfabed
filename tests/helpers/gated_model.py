"""A small model with MU-LLaMA's bridge and LoRA, of random numbers, and in PyTorch."""

import functools

import jax
import numpy as np
import torch
from flax import nnx

from helpers.random_weights import random_module
from musilingo_jax.models.bridges import gated_values
from musilingo_jax.models.bridges.gated_values import GatedValues, GatedValuesConfig
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import MAPS, MapSizes, Tuning, TuningConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained.parameters import parameters

SMALL = LlamaConfig(
    vocab=61,
    width=24,
    depth=4,
    heads=3,
    key_heads=3,
    head_dim=8,
    mlp_width=40,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied=False,
)
BRIDGE = GatedValuesConfig(
    encoder_states=5,
    encoder_width=10,
    language_model_width=24,
    language_model_depth=4,
    language_model_heads=3,
    query_layers=3,
    blocks=2,
    block_width=32,
)
TUNING = TuningConfig(
    rank=4,
    alpha=4.0,
    targets=MAPS,
    biases=("query", "out", "gate", "up", "down"),
    norms=True,
)


@functools.cache
def model_parts():
    """A whole model of random numbers, gates and scales of norms included."""

    def tuning():
        return Tuning.fresh(MapSizes.of(SMALL), TUNING, rngs=nnx.Rngs(0))

    return Parts(
        bridge=random_module(lambda: GatedValues(BRIDGE, rngs=nnx.Rngs(0)), seed=1),
        llama=random_module(lambda: Llama(SMALL, rngs=nnx.Rngs(0)), seed=2),
        tuning=random_module(tuning, seed=3),
    )


def in_torch(parts):
    """The same numbers under the names and in the layout of the torch model."""
    found = {}
    for row, leaf in zip(
        parameters(parts.bridge, gated_values.NAMES),
        jax.tree.leaves(parts.bridge),
        strict=True,
    ):
        layers = leaf if row.stacked else [leaf]
        for (name,), layer in zip(row.spellings[0], layers, strict=True):
            found[name] = row.write(np.asarray(layer))[0]
    llama, tuning = parts.llama, parts.tuning
    found |= {
        "embedding": llama.embedding[...],
        "head": llama.head.kernel[...].T,
        "norm": llama.norm.scale[...] if tuning is None else tuning.norm[...],
    }
    for i in range(SMALL.depth):
        beside = llama.layers if tuning is None else tuning.layers
        for norm in ("attention_norm", "mlp_norm"):
            scale = getattr(beside, norm)
            scale = scale.scale if tuning is None else scale
            found[f"layers.{i}.{norm}"] = scale[...][i]
        for name in MAPS:
            found[f"layers.{i}.{name}.weight"] = (
                getattr(llama.layers, name).kernel[...][i].T
            )
            if tuning is not None:
                extra = getattr(tuning.layers, name)
                found[f"layers.{i}.{name}.a"] = extra.a[...][i].T
                found[f"layers.{i}.{name}.b"] = extra.b[...][i].T
                if extra.bias is not None:
                    found[f"layers.{i}.{name}.bias"] = extra.bias[...][i]
    return {
        name: torch.tensor(np.asarray(array), requires_grad=True)
        for name, array in found.items()
    }
