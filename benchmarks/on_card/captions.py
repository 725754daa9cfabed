"""Captions from end to end: sound in the host's memory → tokens there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musilingo_jax.answering.decoding import Admission, Rows, admit, decode
from musilingo_jax.answering.padded_prompts import PaddedPrompts, round_up
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.models.mert import Mert
from musilingo_jax.runtime.sharding import batch_sharding, make_mesh
from on_card.ceilings import Ceilings
from on_card.decode import SLOTS, endless, reader_of
from on_card.encode import encode, noise
from on_card.part import Part, times
from on_card.sizes import AUDIO_AT, Sizes
from on_card.weights import random_mert


def measure_captions(sizes: Sizes, ceilings: Ceilings, part: Part) -> None:
    """Each number of songs, captioned together."""
    del ceilings
    mesh = make_mesh(1, 1, 1)
    mert = random_mert(sizes.mert, mesh)
    held: list[PromptReader] = []

    def make() -> dict[str, float]:
        held.append(reader_of(sizes, "", mesh))
        weights = jax.tree.leaves((mert, held[0].llama))
        return {"gigabytes": sum(leaf.nbytes for leaf in weights) / 1e9}

    if part.measure("bfloat16, weights of both models", make) is None:
        return
    for songs in sizes.caption_batches:

        def figures(songs: int = songs) -> dict[str, float]:
            found = times(captioning(sizes, mert, held[0], songs, mesh))
            rate = songs / found["seconds"]
            return found | {
                "captions_per_second": rate,
                "tokens_per_second": rate * sizes.caption_tokens,
            }

        what = f"{songs} × {sizes.caption_seconds:g} s, {sizes.caption_tokens} tokens"
        part.measure(what, figures, songs=songs)


def captioning(
    sizes: Sizes, mert: Mert, reader: PromptReader, songs: int, mesh: Mesh
) -> Callable[[], np.ndarray]:
    """A function that captions songs and returns their tokens [songs, tokens].

    Sound goes to the device, as float32, within the measured time. Each song has a
    prompt of its own, read whole; nothing is shared between songs.
    """
    waveform = noise(sizes, songs, sizes.caption_seconds)
    rule = reader.replicate(endless(sizes.llama.vocab))
    length = sizes.caption_prompt
    # Prompts have no beginning in common: the bank holds one that is empty.
    bank = empty_cache(reader, rows=1, slots=SLOTS, spread=False)
    slots = SLOTS + round_up(length + sizes.caption_tokens, SLOTS)
    words = np.random.default_rng(0).integers(3, sizes.llama.vocab, (songs, length))

    def features() -> jax.Array:
        parts = []
        for start in range(0, songs, sizes.caption_encoded):
            part = waveform[start : start + sizes.caption_encoded]
            lengths = np.full(len(part), part.shape[1], np.int32)
            placed = jax.device_put((part, lengths), batch_sharding(mesh))
            parts.append(encode(mert, *placed))
        return jnp.concatenate(parts)

    def run() -> np.ndarray:
        heard = features()
        windows = heard.shape[1]
        slot = np.full((songs, length), -1, np.int32)
        slot[:, AUDIO_AT : AUDIO_AT + windows] = np.arange(windows)
        lengths = np.full(songs, length, np.int32)
        text = jax.device_put(
            (words.astype(np.int32), slot, lengths), batch_sharding(mesh)
        )
        admission = Admission(
            prompts=PaddedPrompts(heard, *text),
            prefixes=reader.replicate(np.zeros(songs, np.int32)),
            held=None,
            places=reader.replicate(np.arange(songs, dtype=np.int32)),
            seeds=reader.replicate(np.zeros(songs, np.uint32)),
            limits=reader.replicate(np.full(songs, sizes.caption_tokens, np.int32)),
            stop_states=reader.replicate(np.zeros(songs, np.int32)),
        )
        rows = Rows.empty(
            empty_cache(reader, rows=songs, slots=slots, spread=True),
            reader.replicate(np.zeros(songs, np.uint32)),
            max_new_tokens=sizes.caption_tokens,
            stop_state=rule.stops.finished,
        )
        rows = admit(reader, rule, rows, bank, admission)
        rows = decode(
            reader, rule, rows, np.int32(songs), np.int32(sizes.caption_tokens)
        )
        return np.asarray(rows.tokens)

    return run
