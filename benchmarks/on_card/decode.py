"""Decoding: one token after another in rows that hold a long context."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from musilingo_jax.answering.decoding import Rows, TokenRule, decode
from musilingo_jax.answering.padded_prompts import round_up
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.sampling import Choice, Greedy
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.kv_cache import KVCache
from musilingo_jax.models.llama import UnstackedLlama, unstacked
from musilingo_jax.runtime.sharding import make_mesh
from on_card.ceilings import Ceilings
from on_card.part import Part, times
from on_card.sizes import Sizes
from on_card.weights import random_llama

# Slots of a cache are a multiple of this.
SLOTS = 32


def measure_decode(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """Each type of weights and number of rows."""
    mesh = make_mesh(1, 1, 1)
    for still, quantization in ((2, ""), (1, "int8")):
        part.begin(still)
        name = quantization or "bfloat16"
        held: list[PromptReader] = []

        def make(
            held: list[PromptReader] = held, quantization: str = quantization
        ) -> dict[str, float]:
            held.append(reader_of(sizes, quantization, mesh))
            return {"gigabytes": bytes_read(held[0].llama) / 1e9}

        if part.measure(f"{name}, weights read per step", make) is None:
            continue
        for rows in sizes.decode_rows:

            def figures(rows: int = rows, held: list[PromptReader] = held) -> dict:
                return _figures(sizes, ceilings, held[0], rows)

            part.measure(
                f"{name}, {rows} × {sizes.context} tokens of context",
                figures,
                weights=name,
                rows=rows,
                context=sizes.context,
            )


def reader_of(sizes: Sizes, quantization: str, mesh: Mesh) -> PromptReader:
    """A random language model in the layout that decodes, and a random adapter."""
    llama = random_llama(sizes.llama, quantization=quantization, mesh=mesh)
    adapter = LinearBridge(sizes.mert.hidden_size, sizes.llama.width, rngs=nnx.Rngs(0))
    return PromptReader(adapter, unstacked(llama), mesh)


def endless(vocab: int) -> TokenRule:
    """Takes the likeliest token; none ends an answer."""
    table = jnp.array([[0, 1], [1, 1]], jnp.int32)
    stops = Stops(table, jnp.zeros((1, vocab), jnp.int32))
    return TokenRule(Choice((), Greedy()), stops)


def bytes_read(llama: UnstackedLlama) -> int:
    """Bytes of the weights that a step reads: all but the rows of other tokens."""
    everything = sum(leaf.nbytes for leaf in jax.tree.leaves(llama))
    return everything - (0 if llama.config.tied else llama.embedding.nbytes)


def bytes_per_token(cache: KVCache) -> float:
    """Bytes of one token's keys and values in all layers."""
    held = sum(array.nbytes for array in jax.tree.leaves(cache)) - cache.ends.nbytes
    return held / cache.slots / len(cache.ends)


def _figures(
    sizes: Sizes, ceilings: Ceilings, reader: PromptReader, count: int
) -> dict[str, float | None]:
    """The time of a run of steps, of which each reads the weights and the cache once.

    The share of the bandwidth counts the weights and the slots that hold text, whatever
    the program really reads.
    """
    steps, context = sizes.decode_steps, sizes.context
    slots = round_up(context + steps, SLOTS)
    rule = reader.replicate(endless(sizes.llama.vocab))
    cache = empty_cache(reader, rows=count, slots=slots, spread=True)
    per_token = bytes_per_token(cache)
    rows = Rows.empty(
        cache,
        reader.replicate(np.zeros(count, np.uint32)),
        max_new_tokens=steps + 2,
        stop_state=0,
    )
    tokens = reader.replicate(np.zeros((count, steps + 2), np.int32))
    ends = np.full(count, context, np.int32)

    def run() -> None:
        nonlocal rows
        begun = dataclasses.replace(
            rows,
            cache=dataclasses.replace(rows.cache, ends=reader.replicate(ends)),
            tokens=tokens.copy(),
            count=reader.replicate(np.ones(count, np.int32)),
            stop_state=reader.replicate(np.zeros(count, np.int32)),
        )
        rows = decode(reader, rule, begun, np.int32(count + 1), np.int32(steps))
        jax.block_until_ready(rows.count)

    found = times(run)
    live = count * per_token * (context + (steps + 1) / 2)
    moved = steps * (bytes_read(reader.llama) + live)
    rate = 1 / found["seconds"]
    return found | {
        "steps": steps,
        "tokens_per_second": count * steps * rate,
        "gb_per_second": moved * rate / 1e9,
        "bandwidth_share": ceilings.share_of_bandwidth(moved * rate),
    }
